"""Whether the viewer got through: what a server of ours says, and what ssh says of the tunnel.

The real sshd and viewer are in tests/system/test_forwarding_refused.py.
"""

import os

import pytest

from tests.unit.client.fakes import HOLD, Stage, is_alive

#: A server that names its tunnel says `attached`, too.
NEW = "listener = ready(tunnel=far_socket())\n"
ATTACHED = "say('attached')\n"


def test_a_viewer_that_ends_before_attached_has_failed(stage: Stage) -> None:
    stage.ssh(f"{NEW}hold()\n")
    stage.viewer("")
    code, _, err = stage.run("vm1")
    assert code == os.EX_UNAVAILABLE
    told, hint = err.splitlines()
    assert told == f"spice-connect: the viewer {stage.home}/viewer ended before it showed 'vm1'"
    assert "hands over to another process" in hint


def test_a_viewer_that_ends_after_attached_was_closed(stage: Stage) -> None:
    stage.ssh(f"{NEW}{ATTACHED}hold()\n")
    stage.viewer(stage.waits())
    client = stage.start("vm1")
    stage.pid("viewer")
    stage.go()
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 0


def test_attached_may_come_a_moment_after_the_viewer_s_end(stage: Stage) -> None:
    stage.ssh(f"{NEW}{stage.waits()}time.sleep(0.1)\n{ATTACHED}hold()\n")
    stage.viewer(f"open({str(stage.home / 'go')!r}, 'w')\n")
    assert stage.run("vm1") == (0, "", "")


def test_each_viewer_has_to_get_through(stage: Stage) -> None:
    """Also the one after a restart of the VM."""
    again = "say('waiting', reason='', hint='')\nlistener.close()\nos.unlink(local_socket())\n"
    stage.ssh(f"{NEW}{ATTACHED}{stage.waits()}{again}{NEW}hold()\n")
    stage.viewer("if turn == 1:\n    hold()\n")
    client = stage.start("vm1")
    stage.pid("viewer")
    stage.go()
    _, err = client.communicate(timeout=10)
    code = client.returncode
    assert (code, "ended before it showed 'vm1'" in err) == (os.EX_UNAVAILABLE, True)


def test_the_viewer_s_own_failure_counts_first(stage: Stage) -> None:
    stage.ssh(f"{NEW}hold()\n")
    stage.viewer("sys.exit('no screen')\n")
    told = "spice-connect: the viewer failed (exit status 1): no screen\n"
    assert stage.run("vm1") == (69, "", told)


def test_another_tunnel_is_told_and_no_viewer_starts(stage: Stage) -> None:
    stage.ssh("listener = ready(tunnel='/run/other/tunnel.sock')\nhold()\n")
    code, _, err = stage.run("vm1")
    assert code == os.EX_CONFIG
    assert err == (
        "spice-connect: the tunnel of kvm is /run/other/tunnel.sock, not "
        "/run/spicetunnel/tunnel.sock\n"
        'hint: --run-dir /run/other, or run-dir = "/run/other" in the configuration\n'
    )
    assert stage.all_noted("viewer") == []


@pytest.mark.parametrize("tunnel", ["5", "'x'", "'/run/a b'", "'/' + 'x' * 200"])
def test_a_malformed_tunnel_is_a_protocol_error(stage: Stage, tunnel: str) -> None:
    stage.ssh(f"listener = ready(tunnel={tunnel})\nhold()\n")
    assert stage.run("vm1")[0] == os.EX_PROTOCOL


def refused(far: str) -> str:
    place = "channels.c:channel_post_port_listener()"
    return (
        f"mark({place!r}, 'Connection to port -2 forwarding to ' + {far} + ' port -2 requested.',"
        " 'channel 3: new [direct-streamlocal]')\n"
        "log('channel 3: open failed: connect failed: open failed')\n"
    )


@pytest.mark.parametrize("options", [[], ["--no-viewer"]])
def test_a_refused_channel_ends_the_viewer(stage: Stage, options: list[str]) -> None:
    stage.ssh(f"{NEW}{stage.waits()}{refused('far_socket()')}hold()\n")
    client = stage.start(*options, "vm1")
    viewer = 0 if options else stage.pid("viewer")
    if options:
        assert client.stdout is not None
        client.stdout.readline()
    stage.go()
    _, err = client.communicate(timeout=10)
    assert client.returncode == 69
    *_, told, hint = err.splitlines()
    assert told == "spice-connect: kvm does not forward to its spicetunnel"
    assert 'before your key, port-forwarding,permitopen="[/run/spicetunnel/tunnel.sock]:*"' in hint
    assert not viewer or not is_alive(viewer)


def test_a_refused_channel_of_another_forwarding_ends_nothing(stage: Stage) -> None:
    stage.ssh(f"{NEW}{refused(repr('/run/other.sock'))}{ATTACHED}hold()\n")
    stage.viewer("time.sleep(0.3)\n")
    code, _, err = stage.run("vm1")
    assert (code, "spice-connect:" in err) == (0, False)


def test_a_channel_that_is_refused_to_a_viewer_that_got_through_ends_nothing(stage: Stage) -> None:
    """The broker may be starting again, for which a session lives on."""
    stage.ssh(f"{NEW}{ATTACHED}time.sleep(0.2)\n{refused('far_socket()')}hold()\n")
    stage.viewer("time.sleep(0.6)\n")
    code, _, err = stage.run("vm1")
    assert (code, "spice-connect:" in err) == (0, False)


LOGGED_IN = "mark('sshconnect2.c:ssh_userauth2()', 'Authenticated to kvm using \"x\".')\n"
SHORT = "connection.FIRST_WORD = 0.5"


@pytest.mark.parametrize("arguments", [["vm1"], ["--list"]])
def test_a_gate_that_says_nothing_after_the_login(stage: Stage, arguments: list[str]) -> None:
    stage.ssh(LOGGED_IN + HOLD)
    code, _, err = stage.run(*arguments, patch=SHORT)
    told, hint = err.splitlines()
    assert (code, told) == (
        69,
        "spice-connect: kvm let you log in, but its gate said nothing within 0.5 s",
    )
    assert "ssh kvm list" in hint


def test_before_the_login_a_person_has_all_the_time(stage: Stage) -> None:
    """They may have to look for their key."""
    stage.ssh(f"time.sleep(1.5)\n{LOGGED_IN}listener = ready()\nhold()\n")
    stage.viewer("")
    assert stage.run("vm1", patch=SHORT) == (0, "", "")


def test_a_gate_may_be_silent_after_its_first_word(stage: Stage) -> None:
    stage.ssh(
        f"{LOGGED_IN}say('waiting', reason='wait', hint='')\ntime.sleep(1)\n"
        "listener = ready()\nhold()\n"
    )
    stage.viewer("")
    code, _, err = stage.run("vm1", patch=SHORT)
    assert (code, err) == (0, "spice-connect: wait\nspice-connect: 'vm1' is ready\n")


def test_an_ssh_that_does_not_tell_of_the_login_has_more_time(stage: Stage) -> None:
    ssh = stage.home / "ssh"
    stage.ssh(HOLD)
    ssh.write_text(ssh.read_text().replace("OpenSSH_9.2p1", "OpenSSH_8.4p1"))
    patch = "from spice_connect.tunnel import start; start.FIRST_WORD_WITH_LOGIN = 0.5"
    code, _, err = stage.run("vm1", patch=patch)
    assert (code, err) == (69, "spice-connect: kvm does not answer\n")


def test_foreign_words_are_held_back_and_the_last_line_is_told(stage: Stage) -> None:
    stage.ssh(
        LOGGED_IN + "time.sleep(0.2)\n"
        "print('xdg-open: unexpected option\\nTry \\033[1m--help', file=sys.stderr)\nsys.exit(1)\n"
    )
    code, out, err = stage.run("vm1")
    assert (code, out) == (76, "")
    told, hint = err.splitlines()
    assert told == (
        "spice-connect: no spicetunnel gate answered on kvm (exit status 1); "
        "it says: Try ?[1m--help"
    )
    assert "are you in its group?" in hint


def test_before_the_login_ssh_s_stderr_is_passed_on(stage: Stage) -> None:
    """A banner, a jump host's words, the request to touch a key; without a newline, too."""
    stage.ssh("os.write(2, b'touch it: ')\nhold()\n")
    client = stage.start("vm1")
    assert client.stderr is not None
    assert client.stderr.read(10) == "touch it: "
    client.terminate()
