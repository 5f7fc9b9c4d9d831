"""Messages for failures of ssh. The real ssh is in tests/system/test_ssh_failures.py."""

import os
import pty
import subprocess

import pytest
from spice_connect.errors import LostError
from spice_connect.tunnel import causes

from tests.unit.client.fakes import Stage, command


@pytest.mark.parametrize(
    ("said", "reason", "passing"),
    [
        ("", "ssh could not reach kvm or log in there", True),
        ("ssh: Could not resolve hostname kvm: Name or service not known", "no host called", True),
        ("ssh: connect to host kvm port 22: Connection refused", "kvm refused", True),
        ("ssh: connect to host kvm port 22: No route to host", "cannot be reached", True),
        ("ssh: connect to host kvm port 22: Network is unreachable", "cannot be reached", True),
        ("ssh: connect to host kvm port 22: Connection timed out", "cannot be reached", True),
        ("Timeout, server kvm not responding.", "ssh could not reach kvm", True),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\nHost key verification failed.",
         "the host key of kvm has changed", False),
        ("Host key verification failed.", "is not known here", False),
        ("a@kvm: Permission denied (publickey).", "did not let you log in", True),
        ("Permission denied, please try again.", "ssh could not reach kvm", True),
        ("Unable to negotiate with ::1 port 22: no matching cipher found.", "too old", False),
    ],
)  # fmt: skip
def test_each_cause_has_a_message(said: str, reason: str, passing: bool) -> None:
    error = causes.explain(causes.Attempt("kvm", said))
    assert reason in error.reason
    assert "kvm" in error.reason
    assert isinstance(error, LostError) is passing
    assert error.exit_code == os.EX_UNAVAILABLE


JUMP = "exec ssh -l anne -p 1 -J one,bert@two:22 -F none -W '[kvm]:22' hop"
WAY_ENDED = "Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n"


@pytest.mark.parametrize(
    ("way", "stderr", "reason", "hint"),
    [
        (JUMP, "anne@hop: Permission denied (publickey).",
         "the jump hosts one and two and hop, on the way to kvm, did not let ssh through",
         "what does `ssh -J one,bert@two:22 anne@hop` say?"),
        ("exec ssh -W '[kvm]:22' hop", "anne@hop: Permission denied (publickey).",
         "hop, the jump host on the way to kvm, did not let you log in", "does it know"),
        ("ssh -v -W '[::1]:22' fe80::1%lo", "",
         "the jump host fe80::1%lo, on the way to kvm, did not let ssh through",
         "what does `ssh fe80::1%lo` say?"),
        ("exec nc kvm 22", "sh: 1: exec: nc: not found\n",
         ("the ProxyCommand on the way to kvm ended before the host answered; "
          "it says: sh: 1: exec: nc: not found"), "what does `ssh kvm` say?"),
    ],
)  # fmt: skip
def test_what_fails_on_the_way_is_named(way: str, stderr: str, reason: str, hint: str) -> None:
    error = causes.explain(causes.Attempt("kvm", WAY_ENDED, stderr, way))
    assert error.reason == reason
    assert error.hint.startswith(hint)


TERMINATING = "/c: terminating, 1 bad configuration options\r\n"


@pytest.mark.parametrize(
    "said",
    [
        f"/c: line 2: Bad configuration option: x\r\n{TERMINATING}",
        f"/c line 12: Bad port 'abc'.\r\n{TERMINATING}",
        "Can't open user config file /c: No such file or directory\r\n",
        "Bad owner or permissions on /c\r\n",
    ],
)
def test_a_fault_of_this_machine_is_not_tried_again(said: str) -> None:
    error = causes.explain(causes.Attempt("kvm", said))
    assert not isinstance(error, LostError)
    assert "/c" in error.reason
    assert "\r" not in error.reason
    assert error.hint


def test_an_option_that_is_only_deprecated_is_no_fault() -> None:
    said = (
        '/c line 12: Deprecated option "x"\r\nssh: connect to host kvm port 22: Connection refused'
    )
    assert causes.explain(causes.Attempt("kvm", said)).reason == "kvm refused the connection"


def test_a_host_that_is_none_to_ssh() -> None:
    error = causes.explain(causes.Attempt("ssh://x:y", "", "usage: ssh [-46AaCf]\n"))
    assert not isinstance(error, LostError)
    assert error.reason == "ssh does not take this command line"


def test_what_a_server_says_in_its_banner_is_not_taken_for_ssh_s_word() -> None:
    banner = "REMOTE HOST IDENTIFICATION HAS CHANGED\nYour account has expired\n"
    refused = causes.Attempt("kvm", "ssh: connect to host kvm port 22: Connection refused", banner)
    assert causes.explain(refused).reason == "kvm refused the connection"


@pytest.mark.parametrize("cause", [*causes.CAUSES, causes.EXPIRED, causes.CUT, causes.UNKNOWN])
def test_each_message_has_a_hint_and_none_suggests_to_skip_a_check(cause: causes.Cause) -> None:
    assert cause.hint
    for word in ("ssh-keygen", "known_hosts", "remove", "StrictHostKeyChecking"):
        assert word not in cause.reason + cause.hint


def test_ssh_s_own_message_comes_unchanged_before_ours(stage: Stage) -> None:
    stage.ssh(
        'log("\\033[7mssh: connect to host kvm port 22: Connection refused")\nsys.exit(255)\n'
    )
    code, out, err = stage.run("vm1")
    assert (code, out) == (69, "")
    own, sentence, hint = err.split("\n", 2)
    # Text streams make "\r\n" a single "\n".
    assert own == "\033[7mssh: connect to host kvm port 22: Connection refused"
    assert sentence == "spice-connect: kvm refused the connection"
    assert hint.startswith("hint: does sshd run there")


def test_ssh_s_messages_are_shown_at_once(stage: Stage) -> None:
    stage.ssh('log("Permission denied, please try again.")\nhold()\n')
    client = stage.start("vm1")
    assert client.stderr is not None
    assert client.stderr.readline() == "Permission denied, please try again.\n"
    client.terminate()


def test_ssh_s_stderr_is_the_terminal(stage: Stage) -> None:
    """So that it asks there for the touch of a hardware key."""
    stage.ssh('note("tty %s" % os.isatty(2))\nsys.exit(255)\n')
    leader, follower = pty.openpty()
    client = subprocess.Popen(command("vm1"), env=stage.environment, stderr=follower)
    os.close(follower)
    client.wait(10)
    os.close(leader)
    assert stage.noted("tty") == "True"


REFUSED = 'log("channel 3: open failed: administratively prohibited: open failed")\n'


def test_a_viewer_that_failed_because_a_forwarding_was_refused(stage: Stage) -> None:
    stage.ssh(f"listener = ready()\n{stage.waits()}{REFUSED}note('said .')\nhold()\n")
    stage.viewer(f"{stage.waits('end')}sys.exit(1)\n")
    client = stage.start("vm1")
    stage.pid("viewer")
    stage.go()
    stage.noted("said")
    stage.go("end")
    _, err = client.communicate(timeout=10)
    assert client.returncode == 69
    assert "spice-connect: kvm does not forward to its spicetunnel\nhint: " in err


def test_a_refused_forwarding_of_the_user_s_own_is_not_a_failure(stage: Stage) -> None:
    stage.ssh(f"{REFUSED}listener = ready()\nhold()\n")
    stage.viewer("")
    code, _, err = stage.run("vm1")
    assert (code, "spice-connect:" in err) == (0, False)


def test_a_changed_host_key_ends_the_reconnecting(stage: Stage) -> None:
    """The network is back, but another host answers."""
    changed = 'log("REMOTE HOST IDENTIFICATION HAS CHANGED")\nsys.exit(255)\n'
    stage.ssh(f"if turn == 1:\n    listener = ready()\n    sys.exit(255)\n{changed}")
    code, _, err = stage.run("vm1", patch="reconnect.PAUSES = (0.01,)")
    assert code == 69
    assert "spice-connect: the host key of kvm has changed\n" in err
    assert len(stage.all_noted("ssh")) == 2
