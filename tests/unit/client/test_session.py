"""The client as a process, with a fake ssh and a fake viewer: every way to end."""

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from spice_connect.tunnel.afterlogin import NO_GATE

from tests.unit.client.fakes import HOLD, READY, Stage, children, command, eventually, is_alive


def test_the_viewer_gets_the_tunnel_and_the_title(stage: Stage) -> None:
    stage.ssh('listener = ready("Büro, 50 %")\nhold()\n')
    stage.viewer('note("file " + json.dumps(open(sys.argv[1]).read()))')
    assert stage.run("vm1") == (0, "", "")
    directory = stage.noted("file").split("unix-path=")[1].split("/spice\\n")[0]
    assert Path(directory).parent == stage.runtime
    assert stage.noted("file") == (
        f'"[virt-viewer]\\ntype=spice\\nunix-path={directory}/spice\\n'
        'title=B\\u00fcro, 50 % (vm1)\\ndelete-this-file=0\\n"'
    )


def test_what_the_right_does_not_give_is_in_the_title_and_told_once(stage: Stage) -> None:
    limits = (
        'title="T", limits=["view-only", "no \\x1b[1musbredir"], until="2099-01-05T09:00:00+01:00"'
    )
    stage.ssh(f'listener = listen()\nfor _ in 1, 2:\n    say("ready", {limits})\nhold()\n')
    stage.viewer('note("file " + repr(open(sys.argv[-1]).read()))\n')
    code, _, err = stage.run("vm1")
    assert "title=T (vm1), view-only, no ?[1musbredir\\n" in stage.noted("file")
    told = "your rights at 'vm1': view-only, no ?[1musbredir, until 2099-01-05 09:00"
    assert (code, err) == (0, f"spice-connect: {told}\n")


@pytest.mark.parametrize("limits", ["5", '"view-only"', "[5]", '["x"] * 99'])
def test_malformed_limits_end_it(stage: Stage, limits: str) -> None:
    stage.ssh(f'say("ready", limits={limits})\nhold()\n')
    code, _, err = stage.run("vm1")
    assert (code, 'malformed: "limits"' in err) == (76, True)


def test_moments_are_told_in_the_users_own_time(stage: Stage) -> None:
    times = '{"10:04 (Asia/Tokyo)": "2099-01-05T10:04:00+09:00"}'
    words = 'reason="since 10:04 (Asia/Tokyo)", hint="10:04 (Asia/Tokyo)"'
    stage.ssh(f'say("refused", code=75, {words}, times={times})\nhold()\n')
    moment = "2099-01-05 02:04 CET"
    assert stage.run("vm1")[2] == f"spice-connect: since {moment}\nhint: {moment}\n"


@pytest.mark.parametrize(("typed", "meant"), [("Payroll", "payroll"), ("payrol", "payroll")])
def test_a_name_that_is_nearly_one_of_the_users_own(stage: Stage, typed: str, meant: str) -> None:
    stage.ssh('say("vms", vms=[dict(name="payroll")])\n')
    stage.run("--list")
    stage.ssh('say("refused", code=77, reason="you may not use it", hint="ask")\nhold()\n')
    assert f"hint: did you mean '{meant}'?\n" in stage.run(typed)[2]
    assert "hint: ask\n" in stage.run("payroll")[2]
    assert "hint: ask\n" in stage.run("windows")[2]


def test_without_a_title_the_name_of_the_vm_is_shown(stage: Stage) -> None:
    stage.ssh('listener = ready("")\nhold()\n')
    stage.viewer('note("file " + json.dumps(open(sys.argv[1]).read()))')
    stage.run("vm1")
    assert "title=vm1\\n" in stage.noted("file")


def test_the_directory_and_the_file_are_private(stage: Stage) -> None:
    client = stage.start("vm1")
    stage.pid("viewer")
    (directory,) = stage.runtime.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "session.vv").stat().st_mode) == 0o600
    client.terminate()


def test_ssh_is_asked_for_exactly_this(stage: Stage) -> None:
    stage.ssh('note("argv " + json.dumps(sys.argv[-6:]))\n' + READY)
    stage.viewer("")
    stage.run("--host", "anne@lab", "--run-dir", "/run/x", "--take-over", "vm1")
    assert stage.noted("argv") == (
        '["anne@lab", "open", "--json", "--take-over", "--keep", "vm1"]'
    )  # the rest is in test_ssh.py


def test_stdin_is_not_read(stage: Stage) -> None:
    """Ssh asks for passwords on the terminal itself, not on stdin."""
    stage.ssh('note("ssh-stdin " + os.readlink("/proc/self/fd/0"))\n' + READY)
    stage.viewer('note("viewer-stdin " + os.readlink("/proc/self/fd/0"))\n')
    stage.run("vm1")
    assert stage.noted("ssh-stdin") == stage.noted("viewer-stdin") == "/dev/null"


def test_verbose_shows_the_commands_and_other_output(stage: Stage) -> None:
    stage.ssh('print("Welcome\\x1b[31m!", flush=True)\n' + READY)
    stage.viewer('print("Gtk-WARNING")')
    code, out, err = stage.run("-v", "vm1")
    assert (code, out) == (0, "")
    assert f"spice-connect: {stage.home}/ssh -T -a -x -E " in err
    assert "spice-connect: server says: Welcome?[31m!\n" in err
    assert "spice-connect: viewer says: Gtk-WARNING\n" in err


def test_other_output_and_unknown_events_are_skipped(stage: Stage) -> None:
    noise = 'print("hello\\n{}\\n[]\\n" + "x" * 200000)\nsay("new", x=1)\n'
    stage.ssh(noise + 'listener = ready()\nsay("ready")\nhold()\n')
    stage.viewer("")
    assert stage.run("vm1") == (0, "", "")


def test_a_refusal_is_reported_with_hint_and_exit_code(stage: Stage) -> None:
    stage.ssh('say("refused", code=77, reason="not\\nyours", hint="ask\\x1b[0m")\nsys.exit(77)\n')
    expected = "spice-connect: not?yours\nhint: ask?[0m\n"
    assert stage.run("vm1") == (77, "", expected)


@pytest.mark.parametrize("code", [64, 69, 70, 75, 77])
def test_the_server_s_exit_code_is_passed_on(stage: Stage, code: int) -> None:
    stage.ssh(f'say("refused", code={code}, reason="no", hint="")\nhold()\n')
    assert stage.run("vm1") == (code, "", "spice-connect: no\n")


@pytest.mark.parametrize("code", ["0", "126", "255", "-1", "True", '"77"', "None"])
def test_other_exit_codes_of_a_refusal_are_a_protocol_error(stage: Stage, code: str) -> None:
    """Above all not 0: a script must not continue after a refusal."""
    stage.ssh(f'say("refused", code={code}, reason="no", hint="")\nhold()\n')
    assert stage.run("vm1")[0] == os.EX_PROTOCOL


def test_a_notice_is_shown_and_the_session_continues(stage: Stage) -> None:
    stage.ssh('listener = ready()\nsay("notice", reason="5 minutes left", hint="save")\nhold()\n')
    client = stage.start("vm1")
    assert client.stderr is not None
    assert client.stderr.readline() == "spice-connect: 5 minutes left\n"
    assert client.stderr.readline() == "hint: save\n"
    assert is_alive(stage.pid("viewer"))
    assert client.poll() is None
    client.terminate()


def test_the_end_by_the_server_closes_the_viewer_and_says_why(stage: Stage) -> None:
    stage.ssh(
        f"listener = ready()\nwait_for({str(stage.home / 'go')!r})\n"
        'say("end", code=77, reason="your time is over", hint="come back tomorrow")\nhold()\n'
    )
    client = stage.start("vm1")
    viewer = stage.pid("viewer")
    (stage.home / "go").touch()
    _, err = client.communicate(timeout=10)
    assert client.returncode == 77
    assert err == "spice-connect: your time is over\nhint: come back tomorrow\n"
    assert not is_alive(viewer)
    assert stage.left_behind() == []


def test_the_reason_is_reported_even_if_the_viewer_ends_first(stage: Stage) -> None:
    """If a VM is switched off, its viewer ends with status 0 before the gate sends a message."""
    stage.ssh(
        "listener = ready()\n"
        f"wait_for({str(stage.home / 'pid')!r})\n"
        f"viewer = '/proc/' + os.readlink({str(stage.home / 'pid')!r})\n"
        "while os.path.exists(viewer):\n    time.sleep(0.005)\n"
        'say("end", code=69, reason="vm1 is off", hint="")\nhold()\n'
    )
    # A symbolic link appears with its content; a file might be read while it is empty.
    stage.viewer(f"os.symlink(str(os.getpid()), {str(stage.home / 'pid')!r})\n")
    assert stage.run("vm1") == (69, "", "spice-connect: vm1 is off\n")


def test_a_closed_viewer_ends_ssh(stage: Stage) -> None:
    stage.ssh('signal.signal(15, lambda *_: sys.exit(note("terminated .")))\n' + READY)
    go = str(stage.home / "go")
    stage.viewer(f"wait_for({go!r})\n")
    client = stage.start("vm1")
    ssh, _ = stage.pid("ssh"), stage.pid("viewer")
    Path(go).touch()
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 0
    assert stage.noted("terminated")
    assert not is_alive(ssh)
    assert stage.left_behind() == []


def test_a_failed_viewer_is_reported_with_its_last_line(stage: Stage) -> None:
    stage.viewer('print("chatter\\ncannot open\\x1b display", file=sys.stderr)\nsys.exit(1)\n')
    code, _, err = stage.run("vm1")
    assert code == 69
    assert err == "spice-connect: the viewer failed (exit status 1): cannot open? display\n"


def test_a_crashed_viewer_is_reported(stage: Stage) -> None:
    stage.viewer("os.kill(os.getpid(), 9)\n")
    assert stage.run("vm1") == (69, "", "spice-connect: the viewer failed (SIGKILL)\n")


def test_a_viewer_with_endless_output_is_not_blocked(stage: Stage) -> None:
    """If nobody read its output, it would block when the pipe is full."""
    stage.viewer('print("x" * 1000000, flush=True)\n')
    assert stage.run("vm1") == (0, "", "")


def test_a_viewer_that_closes_its_output_keeps_running(stage: Stage) -> None:
    go = str(stage.home / "go")
    stage.viewer(f'os.close(1)\nos.close(2)\nnote("silent .")\nwait_for({go!r})\n')
    client = stage.start("vm1")
    stage.noted("silent")
    before = cpu_ticks(client.pid)
    time.sleep(0.3)  # the time that is measured
    assert cpu_ticks(client.pid) - before < 10  # of 30: it does not spin
    assert client.poll() is None
    Path(go).touch()
    client.communicate(timeout=10)
    assert client.returncode == 0


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_dying_ssh_ends_the_viewer(stage: Stage) -> None:
    client = stage.start("vm1")
    viewer = stage.pid("viewer")
    os.kill(stage.pid("ssh"), signal.SIGKILL)
    _, err = client.communicate(timeout=10)
    assert client.returncode == 69
    assert err == "spice-connect: ssh was ended by SIGKILL\n"
    assert not is_alive(viewer)
    assert stage.left_behind() == []


def test_the_end_of_ssh_is_noticed_even_if_its_output_stays_open(stage: Stage) -> None:
    stage.ssh(
        'if not os.fork():\n    os.close(2)\n    note("inner %d" % os.getpid())\n    hold()\n'
        "listener = ready()\nhold()\n"
    )
    client = stage.start("vm1")
    stage.pid("viewer")
    os.kill(stage.pid("ssh"), signal.SIGKILL)
    client.communicate(timeout=10)
    assert client.returncode == 69
    os.kill(stage.pid("inner"), signal.SIGKILL)


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        ("sys.exit(255)", 69, "ssh could not reach kvm or log in there"),
        ("sys.exit(127)", 76, "no spicetunnel gate answered on kvm (exit status 127)"),
        ("sys.exit(126)", 76, "no spicetunnel gate answered on kvm (exit status 126)"),
        ('print("usage: open"); sys.exit(2)', 76,
         "no spicetunnel gate answered on kvm (exit status 2); it says: usage: open"),
        ("os.close(1); hold()", 76,
         "no spicetunnel gate answered on kvm (exit status None)"),
        ("os.kill(os.getpid(), 15)", 69, "ssh was ended by SIGTERM"),
    ],
)  # fmt: skip
def test_why_ssh_ended_before_it_was_ready(
    stage: Stage, ending: str, code: int, reason: str
) -> None:
    stage.ssh(ending + "\n")
    exit_code, out, err = stage.run("vm1")
    said, *hint = err.splitlines()
    assert (exit_code, out, said) == (code, "", f"spice-connect: {reason}")
    if code == os.EX_PROTOCOL:
        assert hint == [f"hint: {NO_GATE}"]


def test_ssh_s_stderr_reaches_the_terminal(stage: Stage) -> None:
    stage.ssh('print("ssh: connect to host kvm: no route", file=sys.stderr)\nsys.exit(255)\n')
    assert stage.run("vm1")[2].startswith("ssh: connect to host kvm: no route\n")


def test_a_ready_without_a_tunnel_is_a_failure(stage: Stage) -> None:
    """The local end could not be bound, or the configuration has disabled the forwarding."""
    stage.ssh('say("ready", title="")\nhold()\n')
    code, _, err = stage.run("vm1")
    told, hint = err.splitlines()
    assert (code, told) == (69, "spice-connect: ssh did not open the tunnel's end here")
    assert hint.startswith("hint: ")


def test_without_a_viewer_the_path_is_printed_and_the_tunnel_stays(stage: Stage) -> None:
    client = stage.start("--no-viewer", "vm1")
    assert client.stdout is not None
    path = Path(client.stdout.readline().rstrip("\n"))
    assert path.parent.parent == stage.runtime
    assert path.is_socket()
    assert client.poll() is None
    client.send_signal(signal.SIGINT)
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 130
    assert stage.left_behind() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["ssh", "viewer"])
def test_a_signal_ends_all_at_any_moment(stage: Stage, signum: signal.Signals, moment: str) -> None:
    if moment == "ssh":  # ssh hangs, as at a password prompt
        stage.ssh(HOLD)
    client = stage.start("vm1")
    stage.pid(moment)
    client.send_signal(signum)
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 128 + signum
    assert stage.left_behind() == []


def test_a_second_ctrl_c_does_not_interrupt_the_clean_up(stage: Stage) -> None:
    stage.viewer("signal.signal(15, signal.SIG_IGN)\nnote('deaf .')\nhold()\n")
    client = stage.start("vm1")
    stage.noted("deaf")
    client.send_signal(signal.SIGINT)
    eventually(lambda: not is_alive(stage.pid("ssh")))
    client.send_signal(signal.SIGINT)
    client.send_signal(signal.SIGTERM)
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 130
    assert stage.left_behind() == []


def test_a_ctrl_c_during_the_clean_up_leaves_nothing(stage: Stage) -> None:
    stage.ssh("signal.signal(15, lambda *_: note('deaf .'))\n" + READY)
    stage.viewer("")
    client = stage.start("vm1")
    stage.noted("deaf")
    client.send_signal(signal.SIGINT)
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 130
    assert stage.left_behind() == []


def test_an_ignored_hangup_stays_ignored(stage: Stage) -> None:
    """As with nohup."""
    client = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command("vm1")], env=stage.environment
    )
    stage.pid("viewer")
    client.send_signal(signal.SIGHUP)
    client.send_signal(signal.SIGTERM)
    assert client.wait(10) == 143


@pytest.mark.parametrize("viewer", [HOLD, "signal.signal(15, signal.SIG_IGN)\nhold()\n"])
def test_kill_9_of_the_client_leaves_nothing(stage: Stage, viewer: str) -> None:
    """Within 2 s no ssh, viewer, directory or janitor, even if the viewer ignores SIGTERM."""
    stage.viewer(viewer)
    client = stage.start("vm1")
    ssh, shown = stage.pid("ssh"), stage.pid("viewer")
    assert {ssh, shown} < set(children(client.pid))  # and the janitor
    assert (
        len(stage.left_behind()) == 3 + 4
    )  # 4: the directory, the socket, the connection file and the log
    client.kill()
    eventually(lambda: not stage.left_behind(), 2)


def test_kill_9_before_the_server_answers_leaves_nothing(stage: Stage) -> None:
    stage.ssh(HOLD)
    client = stage.start("vm1")
    stage.pid("ssh")
    client.kill()
    eventually(lambda: not stage.left_behind(), 2)


def test_kill_9_at_any_moment_of_the_start_leaves_nothing(stage: Stage) -> None:
    """Killed a little later each time, from the start of Python until the viewer runs."""
    for moment in range(30):
        client = stage.start("vm1")
        time.sleep(moment * 0.008)  # the time is varied, nothing is waited for
        client.kill()
        eventually(lambda: not stage.left_behind(), 2)


def test_a_killed_janitor_ends_the_session_and_leaves_nothing(stage: Stage) -> None:
    client = stage.start("vm1")
    stage.pid("viewer")
    (janitor,) = [pid for pid in children(client.pid) if name(pid) == "spice-janitor"]
    os.kill(janitor, signal.SIGKILL)
    _, err = client.communicate(timeout=10)
    assert client.returncode == 70
    assert err.startswith("spice-connect: the clean-up process was killed")
    assert stage.left_behind() == []


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip()


def test_a_wrapper_around_the_viewer_leaves_nothing(stage: Stage) -> None:
    stage.script("real", HOLD.replace("hold", "note('inner %d' % os.getpid()); hold"))
    wrapper = stage.home / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{stage.home}/real "$@"\n:\n')
    wrapper.chmod(0o755)
    stage.configure(viewer=f'["{wrapper}"]')
    client = stage.start("vm1")
    stage.pid("inner")
    client.kill()
    eventually(lambda: not stage.left_behind(), 2)


def test_two_sessions_of_one_user_are_independent(stage: Stage) -> None:
    first, second = stage.start("--no-viewer", "vm1"), stage.start("--no-viewer", "vm2")
    assert first.stdout is not None
    assert second.stdout is not None
    paths = {client.stdout.readline() for client in (first, second) if client.stdout}
    assert len(paths) == 2
    first.terminate()
    first.wait(10)
    assert second.poll() is None
    assert len(list(stage.runtime.iterdir())) == 1
    second.terminate()


def test_the_longest_names_fit(stage: Stage) -> None:
    """The path of the socket does not contain the name of the VM or the user."""
    stage.viewer("")
    assert stage.run("--host", "u" * 64 + "@" + "h" * 200, "v" * 64) == (0, "", "")


def test_a_long_runtime_directory_falls_back_to_tmp(stage: Stage) -> None:
    deep = stage.runtime / ("x" * 100)
    deep.mkdir(0o700)
    stage.environment["XDG_RUNTIME_DIR"] = str(deep)
    client = stage.start("--no-viewer", "vm1")
    assert client.stdout is not None
    path = Path(client.stdout.readline().rstrip("\n"))
    assert path.parent.parent == Path("/tmp")
    client.terminate()
    client.wait(10)
    assert not path.parent.exists()
    deep.rmdir()
