import json
import os
import pty
import subprocess

from tests.unit.client.fakes import Stage, command, eventually

BARE = {"title": "", "busy_by": "", "until": "", "next": ""}
VMS = [
    {**BARE, "name": "vm1", "title": "Büro [red]x[/red] :smile:", "state": "free"},
    {**BARE, "name": "v" * 64, "title": "a\x1b[31m\nb\u202e", "state": "busy", "busy_by": "maggie"},
    {**BARE, "name": "vm3", "state": "off", "until": "2030-11-25T17:00:00+01:00", "new": "kept"},
    {**BARE, "name": "vm4", "state": "closed", "next": "2030-11-25T17:00:00+01:00"},
    {**BARE, "name": "vm5", "state": "closed"},
    {**BARE, "name": "vm6", "state": "shared", "busy_by": "anne, bob"},
    {**BARE, "name": "vm7", "state": "shared", "busy_by": "anne", "until": "2030-11-25T17:00"},
]
AT_KVM = [vm | {"host": "kvm"} for vm in VMS]


def answer(*parts: list[dict[str, str]]) -> str:
    return "".join(f'say("vms", vms={part!r})\n' for part in parts)


def test_a_plain_table_without_a_terminal(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    code, out, err = stage.run()
    assert (code, err) == (0, "")
    wide, title = "v" * 64, "Büro [red]x[/red] :smile:"
    assert out.splitlines() == [
        f"{'VM':64}  {'TITLE':25}  STATE",
        f"{'vm1':64}  {title}  free",
        f"{wide}  {'a?[31m?b?':25}  busy: maggie",
        f"{'vm3':64}  {'':25}  off until 2030-11-25 17:00",
        f"{'vm4':64}  {'':25}  opens 2030-11-25 17:00",
        f"{'vm5':64}  {'':25}  closed",
        f"{'vm6':64}  {'':25}  free, shared with anne, bob",
        f"{'vm7':64}  {'':25}  free until 2030-11-25 17:00, shared with anne",
    ]


def test_json_is_the_object_with_all_its_keys(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    code, out, _ = stage.run("--json")
    assert code == 0
    assert json.loads(out) == {"event": "vms", "vms": AT_KVM}
    assert out.isascii()


def test_a_long_list_may_come_in_parts(stage: Stage) -> None:
    stage.ssh(answer(VMS[:2], VMS[2:]))
    assert json.loads(stage.run("--json")[1]) == {"event": "vms", "vms": AT_KVM}


def test_an_incomplete_list_is_a_failure(stage: Stage) -> None:
    stage.ssh(answer(VMS) + "sys.exit(255)\n")
    assert stage.run() == (69, "", "spice-connect: the connection to kvm was lost\n")


def test_an_empty_list_says_so(stage: Stage) -> None:
    stage.ssh(answer([]))
    code, out, err = stage.run()
    assert (code, out, err.splitlines()[0]) == (0, "", "spice-connect: no VM on kvm is yours")
    assert json.loads(stage.run("--json")[1]) == {"event": "vms", "vms": []}


def test_a_malformed_list_is_a_failure(stage: Stage) -> None:
    stage.ssh('say("vms", vms=5)\nhold()\n')
    code, out, err = stage.run()
    assert (code, out) == (76, "")
    assert 'malformed: "vms"' in err


def test_a_refusal_is_reported(stage: Stage) -> None:
    stage.ssh('say("refused", code=77, reason="no", hint="")\nsys.exit(77)\n')
    assert stage.run() == (77, "", "spice-connect: no\n")


def on_a_terminal(stage: Stage, **environment: str) -> str:
    """The list as shown on a terminal."""
    leader, follower = pty.openpty()
    client = subprocess.Popen(
        command(), env=stage.environment | environment, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # EIO: no process has the terminal open any more
        pass
    os.close(leader)
    assert client.wait(10) == 0
    return shown.decode()


def test_a_table_on_a_terminal(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    shown = on_a_terminal(stage, TERM="xterm-256color", COLUMNS="60")
    assert "\x1b[1m" in shown  # a bold header
    assert "[red]x[/red]" in shown
    assert ":smile:" in shown  # the server's text is not markup
    assert "\x1b[31m" not in shown
    assert shown.count("v") >= 64  # folded, not cut


def test_no_color_is_honoured(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    shown = on_a_terminal(stage, TERM="xterm-256color", COLUMNS="100", NO_COLOR="1")
    assert "\x1b[3" not in shown
    assert "busy: maggie" in shown


def test_a_reader_of_a_pipe_sees_the_end_at_once(stage: Stage) -> None:
    """No process that outlives the client may keep the pipe open."""
    stage.ssh(answer(VMS))
    pipeline = '"$@" | cat'
    done = subprocess.run(
        ["/bin/sh", "-c", pipeline, "sh", *command()],
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    assert "busy: maggie" in done.stdout


def test_a_closed_pipe_ends_it_silently(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    reader, writer = os.pipe()
    os.close(reader)
    client = subprocess.Popen(
        command(), env=stage.environment, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert client.communicate(timeout=10)[1] == ""
    assert client.returncode == 141


def test_a_character_that_the_locale_lacks_is_escaped(stage: Stage) -> None:
    stage.ssh(answer(VMS))
    stage.environment["PYTHONIOENCODING"] = "ascii"
    code, out, _ = stage.run()
    assert code == 0
    assert "B\\xfcro" in out


HOST = 'host = sys.argv[sys.argv.index("--") + 1]\n'
BATCH = '"BatchMode=yes" in sys.argv'


def several(stage: Stage, body: str) -> None:
    stage.configure(hosts='{"lab-*" = "lab", vm9 = "third"}')
    stage.ssh(f"{HOST}{body}")


def vm(name: str) -> str:
    return f"say('vms', vms=[dict(name={name}, title='T', state='free')])\n"


def test_the_vms_of_all_hosts(stage: Stage) -> None:
    several(stage, vm("'on-' + host"))
    code, out, err = stage.run()
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "VM        HOST   TITLE  STATE",
        "on-kvm    kvm    T      free",
        "on-third  third  T      free",
        "on-lab    lab    T      free",
    ]
    vms = json.loads(stage.run("--json")[1])["vms"]
    assert [(vm["name"], vm["host"]) for vm in vms] == [
        *(("on-kvm", "kvm"), ("on-third", "third"), ("on-lab", "lab")),
    ]


def test_with_host_only_that_host_is_asked(stage: Stage) -> None:
    several(stage, "note('host ' + host)\n" + vm("'vm1'"))
    assert stage.run("--host", "x")[1].startswith("VM   TITLE")
    assert stage.all_noted("host") == ["x"]


def rounds(first: float, last: float) -> str:
    names = "hosts.FIRST_ROUND, hosts.LAST_ROUND"
    return f"from spice_connect.vms import hosts; {names} = {first}, {last}"


def test_hosts_are_asked_at_once(stage: Stage) -> None:
    """Each of them waits for the other two."""
    together = f"while open({str(stage.notes)!r}).read().count('host ') < 3: time.sleep(0.01)\n"
    several(stage, f"note('host ' + host)\n{together}" + vm("'vm1'"))
    assert stage.run()[0] == 0


FAILURES = """
if host == "lab":
    log("ssh: connect to host lab port 22: Connection refused")
    sys.exit(255)
if host == "third":
    say("refused", code=77, reason="not yours", hint="ask")
    hold()
"""


def test_a_failed_host_takes_one_line_and_the_others_are_shown(stage: Stage) -> None:
    several(stage, FAILURES + vm("'vm1'"))
    code, out, err = stage.run()
    assert (code, out.count("vm1")) == (0, 1)
    assert "port 22: Connection refused" in stage.run("-v")[2]
    assert sorted(err.splitlines()) == [
        "spice-connect: lab refused the connection",
        "spice-connect: third: not yours",
    ]


def test_if_all_hosts_fail_the_first_exit_code_counts(stage: Stage) -> None:
    several(stage, f"if host == 'kvm':\n    host = 'third'\n{FAILURES}")
    code, out, err = stage.run("--json")
    assert (code, out, len(err.splitlines())) == (77, "", 3)


def test_a_silent_host_does_not_delay_the_others(stage: Stage) -> None:
    several(stage, f"if host == 'lab':\n    hold()\n{vm('host')}")
    client = stage.start(patch=rounds(1.0, 300.0))
    assert client.stdout is not None
    shown = [client.stdout.readline().split()[0] for _ in range(3)]
    assert shown == ["VM", "kvm", "third"]
    assert client.poll() is None
    client.terminate()


def test_a_silent_host_is_given_up(stage: Stage) -> None:
    several(stage, f"if host == 'lab':\n    hold()\n{vm('host')}")
    code, out, err = stage.run(patch=rounds(1.0, 0.01))
    assert (code, err) == (0, "spice-connect: lab does not answer\n")
    assert "third" in out


PROMPTED = f"""
if host == "lab" and {BATCH}:
    log("anne@lab: Permission denied (password).")
    sys.exit(255)
note("asked " + host + (" silent" if {BATCH} else ""))
"""


def test_only_a_host_that_needed_a_prompt_is_asked_again_on_a_terminal(stage: Stage) -> None:
    several(stage, PROMPTED + vm("'on-' + host"))
    leader, follower = pty.openpty()
    client = subprocess.Popen(
        command(), env=stage.environment, stdin=follower, stdout=subprocess.PIPE, stderr=follower
    )
    os.close(follower)
    out = client.communicate(timeout=10)[0].decode()
    os.close(leader)
    assert client.returncode == 0
    assert "on-lab  lab " in out
    *silent, last = stage.all_noted("asked")
    assert sorted(silent) == ["kvm silent", "third silent"]
    assert last == "lab"


def test_a_host_that_needed_a_prompt_is_asked_before_silent_hosts_are_given_up(
    stage: Stage,
) -> None:
    several(stage, f"if host == 'third':\n    hold()\n{PROMPTED}{vm('host')}")
    leader, follower = pty.openpty()
    client = subprocess.Popen(
        command(patch=rounds(1.0, 300.0)),
        env=stage.environment,
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    eventually(lambda: "lab" in stage.all_noted("asked"))
    client.terminate()
    client.communicate(timeout=10)
    os.close(leader)


def test_without_a_terminal_no_host_is_asked_again(stage: Stage) -> None:
    several(stage, PROMPTED + vm("'vm1'"))
    code, _, err = stage.run()
    assert (code, err) == (0, "spice-connect: lab did not let you log in\n")
