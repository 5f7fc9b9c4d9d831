"""The event loop: it hands back what happened, one event after another."""

import contextlib
import selectors
import time
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar, cast

from spice_connect.tunnel.janitor import Janitor

Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)


class Source(Protocol[Event_co]):
    """A process or a socket whose events the loop hands back."""

    def fileno(self) -> int:
        """Readable when there are events."""

    def events(self) -> Iterable[Event_co]:
        """What has happened since the last call; it does not wait."""


class TimedOut:
    """The event that nothing else happened until the deadline."""


class Loop(Generic[Event]):
    def __init__(self, janitor: Janitor) -> None:
        self._selector = selectors.EpollSelector()
        self._happened: Iterator[Event] = iter(())
        self.watch(janitor)

    def close(self) -> None:
        self._selector.close()

    def watch(self, source: Source[Event]) -> None:
        self._selector.register(source, selectors.EVENT_READ)

    def forget(self, source: Source[Event]) -> None:
        """Hand back no more events of it; no harm if it is not watched."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(source)

    def next(self, deadline: float | None = None) -> Event | TimedOut:
        """Wait for the next event, until `deadline` (of time.monotonic) at most.

        Raises what a source raises: ClientError if the janitor is gone.
        """
        while (event := next(self._happened, None)) is None:
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                return TimedOut()
            self._happened = self.poll(seconds)
        return event

    def poll(self, seconds: float | None = 0) -> Iterator[Event]:
        """The events of all sources that have some now, or first within `seconds`."""
        for key, _ in self._selector.select(seconds):
            # The event before may have had this source forgotten.
            if self._selector.get_map().get(key.fd) is key:
                yield from cast("Source[Event]", key.fileobj).events()

    def fileno(self) -> int:
        """Readable when there are events: for a loop that this one is a part of."""
        return self._selector.fileno()
