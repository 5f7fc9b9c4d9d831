"""Messages for failures of ssh. The real ssh is in tests/system/test_ssh_failures.py."""

import os
import pty
import subprocess

import pytest
from spice_connect.errors import LostError
from spice_connect.tunnel import sshlog

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
    error = sshlog.explain("kvm", said)
    assert reason in error.reason
    assert "kvm" in error.reason
    assert isinstance(error, LostError) is passing
    assert error.exit_code == os.EX_UNAVAILABLE


@pytest.mark.parametrize("cause", sshlog.CAUSES)
def test_each_message_has_a_hint_and_none_suggests_to_skip_a_check(cause: sshlog.Cause) -> None:
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
