"""Desktop notifications, with a fake notify-send; a real one is in tests/system/test_notify.py."""

import json
import os
import signal
import time

import pytest
from spice_connect import notify

from tests.unit.client.fakes import HOLD, Stage, eventually

NOTES = 'note("sent " + json.dumps(sys.argv[1:]))\n'
END = 'say("end", code=75, reason="taken over by anne", hint="ask her")\nhold()\n'


@pytest.fixture
def desktop(stage: Stage) -> Stage:
    """With a fake session bus and a fake notify-send."""
    (stage.home / "bin").mkdir()
    stage.script("bin/notify-send", NOTES)
    stage.environment["PATH"] = f"{stage.home}/bin:{os.environ['PATH']}"
    stage.environment["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"
    return stage


def sent(stage: Stage) -> list[list[str]]:
    return [json.loads(line) for line in stage.all_noted("sent")]


def argv(body: str, urgency: str) -> list[str]:
    return ["--app-name=spice-connect", f"--urgency={urgency}", "--", "vm1", body]


def test_a_notification_shows_why_the_server_ended_the_session(desktop: Stage) -> None:
    desktop.ssh("listener = ready()\n" + END)
    assert desktop.run("vm1")[0] == 75
    assert sent(desktop) == [argv("taken over by anne\nask her", "critical")]


def test_a_warning_is_critical_so_that_it_shows_over_a_full_screen(desktop: Stage) -> None:
    """Desktops hold back other notifications then."""
    desktop.ssh('listener = ready()\nsay("notice", reason="5 minutes left", hint="")\nhold()\n')
    client = desktop.start("vm1")
    assert json.loads(desktop.noted("sent")) == argv("5 minutes left", "critical")
    client.terminate()


def test_waiting_and_reconnecting_are_notified(desktop: Stage) -> None:
    desktop.ssh(
        'if turn == 2:\n    say("refused", code=77, reason="no", hint="")\n    sys.exit(77)\n'
        'listener = ready()\nsay("waiting", reason="vm1 is off", hint="")\ntime.sleep(0.5)\n'
        "sys.exit(255)\n"
    )
    assert desktop.run("vm1", patch="reconnect.PAUSES = (0.5,)")[0] == 77
    lost = "the connection to kvm was lost; connecting again\nCtrl-C ends the trying"
    assert sent(desktop) == [
        argv("vm1 is off", "normal"),
        argv(lost, "normal"),
        argv("no", "critical"),  # the user no longer looks at the terminal
    ]


def test_a_refusal_at_the_start_is_shown_on_the_terminal_only(desktop: Stage) -> None:
    desktop.ssh('say("refused", code=77, reason="no", hint="")\nsys.exit(77)\n')
    assert desktop.run("vm1") == (77, "", "spice-connect: no\n")
    assert sent(desktop) == []


def test_closing_the_window_shows_no_notification(desktop: Stage) -> None:
    desktop.viewer("")
    assert desktop.run("vm1") == (0, "", "")
    assert sent(desktop) == []


def test_the_server_s_text_cannot_be_markup_an_option_or_an_escape() -> None:
    reason = "-u <b>&amp;\x1b[0m\n\\n\\033\u202e"
    command = notify.command("/usr/bin/notify-send", "vm1", reason, "<hint>", urgent=False)
    assert command == [
        *("/usr/bin/notify-send", "--app-name=spice-connect", "--urgency=normal", "--", "vm1"),
        "-u &lt;b&gt;&amp;amp;?[0m?\\\\n\\\\033?\n&lt;hint&gt;",
    ]


def test_a_character_that_the_locale_lacks_is_not_a_failure(desktop: Stage) -> None:
    end = 'say("end", code=75, reason="taken over by J\\u00f3zef \\ud800", hint="")\nhold()\n'
    desktop.ssh("listener = ready()\n" + end)
    desktop.environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert desktop.run("vm1")[0] == 75
    assert len(sent(desktop)) == 1


def test_a_failing_notify_send_is_ignored(desktop: Stage) -> None:
    desktop.script("bin/notify-send", 'sys.exit("no such bus")\n')
    desktop.ssh("listener = ready()\n" + END)
    assert desktop.run("vm1") == (75, "", "spice-connect: taken over by anne\nhint: ask her\n")


def test_a_hanging_notify_send_delays_nothing(desktop: Stage) -> None:
    desktop.script("bin/notify-send", NOTES + "signal.signal(15, signal.SIG_IGN)\n" + HOLD)
    desktop.ssh(
        'listener = ready()\nsay("notice", reason="5 minutes left", hint="")\nnote("on .")\n'
        + desktop.waits()
        + END
    )
    client = desktop.start("vm1")
    desktop.noted("on")
    eventually(lambda: len(sent(desktop)) == 1)
    desktop.pid("viewer")
    begun = time.monotonic()
    desktop.go()
    client.communicate(timeout=10)
    assert time.monotonic() - begun < notify.DELIVERY + 2
    assert client.returncode == 75
    assert desktop.left_behind() == []


def test_kill_9_while_notify_send_hangs_leaves_nothing(desktop: Stage) -> None:
    desktop.script("bin/notify-send", NOTES + HOLD)
    desktop.ssh('listener = ready()\nsay("notice", reason="5 minutes left", hint="")\nhold()\n')
    client = desktop.start("vm1")
    desktop.noted("sent")
    client.send_signal(signal.SIGKILL)
    client.wait()
    eventually(lambda: not desktop.left_behind(), 2)


def test_without_a_session_bus_nothing_is_started(desktop: Stage) -> None:
    """A library might start a bus, which would be left behind."""
    del desktop.environment["DBUS_SESSION_BUS_ADDRESS"]
    desktop.ssh("listener = ready()\n" + END)
    assert desktop.run("vm1")[0] == 75
    assert sent(desktop) == []


def test_a_session_bus_in_the_runtime_directory_is_used(desktop: Stage) -> None:
    del desktop.environment["DBUS_SESSION_BUS_ADDRESS"]
    (desktop.runtime / "bus").touch()
    desktop.ssh("listener = ready()\n" + END)
    client = desktop.start("vm1")
    client.communicate(timeout=10)
    assert len(sent(desktop)) == 1
    (desktop.runtime / "bus").unlink()


def test_without_notify_send_messages_go_to_the_terminal_only(desktop: Stage) -> None:
    desktop.environment["PATH"] = str(desktop.home)
    desktop.ssh("listener = ready()\n" + END)
    assert desktop.run("vm1") == (75, "", "spice-connect: taken over by anne\nhint: ask her\n")


def test_a_server_cannot_flood_the_desktop(desktop: Stage) -> None:
    talk = 'for n in range(40):\n    say("notice", reason=str(n), hint="")\n'
    desktop.ssh("listener = ready()\n" + talk + END)
    _, _, err = desktop.run("vm1")
    assert err.count("spice-connect: ") == 41
    bodies = [words[-1] for words in sent(desktop)]
    assert len(bodies) <= notify.LIMIT + 1
    # It need not be the last note: the others are not waited for.
    assert "taken over by anne\nask her" in bodies
