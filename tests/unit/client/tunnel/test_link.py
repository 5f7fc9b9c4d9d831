"""The order of events that a fake ssh cannot force; all else is in test_session.py."""

import sys
from collections.abc import Callable
from pathlib import Path

from spice_connect.tunnel import talk
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Link
from spice_connect.tunnel.loop import Loop
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Terminal

SPEAKER = [sys.executable, "-IS", "-c", """print('{"event": "ready", "title": "T"}')"""]


class Recorder(Loop):
    """A loop that leaves the order of the callbacks to the test."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def watch(self, _fd: int, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def forget(self, _fd: int) -> None:
        pass


def test_what_ssh_said_last_is_heard_if_its_death_is_seen_first(runtime: Path) -> None:
    """And the end is told once, though two descriptors show it."""
    loop, heard, terminal = Recorder(), list[object](), Terminal()
    with Janitor(str(runtime)) as janitor:
        link = Link(
            janitor,
            SPEAKER,
            "kvm",
            terminal,
            SshLog(janitor.directory, terminal.pass_on, lambda _: False),
        )
        link.watch(loop, heard.append, lambda: heard.append("end"))
        while link.status() is None:
            pass
        on_readable, on_death, _on_log = loop.callbacks
        on_death()
        on_readable()
        on_death()
    assert heard == [talk.Ready("T"), "end"]
