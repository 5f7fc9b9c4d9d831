"""Started from a desktop, without a terminal."""

import json
import os
import pty

import pytest

from tests.unit.client.fakes import Stage

NOTE_ASKPASS = """
for name in "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE":
    note(name + " " + os.environ.get(name, "-"))
ready()
hold()
"""


@pytest.fixture
def desk(stage: Stage) -> Stage:
    """A display, a session bus, notify-send and an askpass."""
    (stage.home / "bin").mkdir()
    stage.script("bin/notify-send", 'note("sent " + json.dumps(sys.argv[1:]))\n')
    stage.script("bin/ssh-askpass", "")
    stage.environment["PATH"] = f"{stage.home}/bin:{os.environ['PATH']}"
    stage.environment["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"
    stage.environment["DISPLAY"] = ":99"
    stage.ssh(NOTE_ASKPASS)
    stage.viewer("")
    return stage


def askpass(desk: Stage) -> tuple[str, str]:
    return desk.noted("SSH_ASKPASS"), desk.noted("SSH_ASKPASS_REQUIRE")


@pytest.mark.parametrize("display", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_ssh_asks_in_a_window(desk: Stage, display: str) -> None:
    del desk.environment["DISPLAY"]
    desk.environment[display] = "x"
    assert desk.run("vm1") == (0, "", "")
    assert askpass(desk) == (f"{desk.home}/bin/ssh-askpass", "force")


def test_the_user_s_askpass_is_kept(desk: Stage) -> None:
    desk.environment |= {"SSH_ASKPASS": "/own", "SSH_ASKPASS_REQUIRE": "never"}
    desk.run("vm1")
    assert askpass(desk) == ("/own", "never")


def test_without_a_display_the_environment_of_ssh_is_unchanged(desk: Stage) -> None:
    del desk.environment["DISPLAY"]
    desk.run("vm1")
    assert askpass(desk) == ("-", "-")


def test_on_a_terminal_the_environment_of_ssh_is_unchanged(desk: Stage) -> None:
    leader, follower = pty.openpty()
    try:
        assert desk.run("vm1", stdin=follower)[0] == 0
    finally:
        os.close(leader)
        os.close(follower)
    assert askpass(desk) == ("-", "-")


def sent(desk: Stage) -> list[str]:
    """The bodies of the notifications."""
    return [json.loads(line)[-1] for line in desk.all_noted("sent")]


def test_a_failure_is_notified_once(desk: Stage) -> None:
    desk.ssh('say("refused", code=77, reason="no <b>", hint="ask")\nsys.exit(77)\n')
    assert desk.run("vm1")[0] == 77
    assert sent(desk) == ["no &lt;b&gt;\nask"]


def test_the_end_of_a_session_is_notified_once(desk: Stage) -> None:
    desk.viewer("hold()\n")
    desk.ssh('listener = ready()\nsay("end", code=75, reason="over", hint="")\nhold()\n')
    assert desk.run("vm1")[0] == 75
    assert sent(desk) == ["over"]


def test_a_bad_uri_is_notified(desk: Stage) -> None:
    assert desk.run("spice-connect://kvm/vm1?x")[0] == 64
    (body,) = sent(desk)
    assert "a query is not allowed" in body
