"""Orders of events that a fake ssh cannot force; the rest is in test_session.py."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from spice_connect.tunnel import protocol
from spice_connect.tunnel.connection import Closed, Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Terminal

SPEAKER = [sys.executable, "-IS", "-c", """print('{"event": "ready", "title": "T"}')"""]


def test_the_last_message_is_read_even_if_the_end_of_ssh_is_seen_first(runtime: Path) -> None:
    terminal = Terminal()
    with Janitor(str(runtime)) as janitor:
        log = SshLog(janitor.directory, terminal.pass_on, lambda _: False)
        link = Connection(janitor, SPEAKER, "kvm", terminal, log)
        while link.status() is None:
            pass
        heard = link.events()
        while not isinstance(heard[-1], Closed):
            heard += link.events()
    assert heard[:-1] == [protocol.Ready("T")]


class Batch:
    """A source with these events."""

    def __init__(self, *events: str) -> None:
        self._reader, self._writer = os.pipe()
        os.write(self._writer, b"x")
        self._events = events

    def fileno(self) -> int:
        return self._reader

    def events(self) -> list[str]:
        os.read(self._reader, 1)
        return list(self._events)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def loop(runtime: Path) -> Iterator[Loop[str]]:
    with Janitor(str(runtime)) as janitor, contextlib.closing(Loop[str](janitor)) as loop:
        yield loop


def test_a_forgotten_source_returns_no_more_events(loop: Loop[str]) -> None:
    """For example a viewer that is closed because of an event in the same round as its end."""
    sources = Batch("a", "b"), Batch("a", "b")
    for source in sources:
        loop.watch(source)
    first = loop.next()
    for source in sources:
        loop.forget(source)
    assert [first, loop.next()] == ["a", "b"]
    assert isinstance(loop.next(time.monotonic() + 0.01), TimedOut)
    for source in sources:
        source.close()


def test_an_endless_source_does_not_delay_the_deadline(loop: Loop[str]) -> None:
    class Endless(Batch):
        def events(self) -> list[str]:
            return ["again"]

    source, deadline = Endless(), time.monotonic() + 0.1
    loop.watch(source)
    while not isinstance(loop.next(deadline), TimedOut):
        assert time.monotonic() < deadline + 5
    source.close()
