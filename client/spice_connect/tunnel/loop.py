"""The event loop. It returns events one by one; the caller decides what they mean."""

import contextlib
import selectors
import time
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar, cast

from spice_connect.tunnel.janitor import Janitor

Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)


class Source(Protocol[Event_co]):
    """Something with events: a connection, a viewer, a host that is asked for its VMs."""

    def fileno(self) -> int:
        """Readable when there are events."""

    def events(self) -> Iterable[Event_co]:
        """The events since the last call. Never waits."""


class TimedOut:
    """The event that the deadline has passed."""


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
        """Return no more events of it. It may be closed, or not watched at all."""
        with contextlib.suppress(KeyError, ValueError):  # ValueError: both
            self._selector.unregister(source)

    def next(self, deadline: float | None = None) -> Event | TimedOut:
        """Wait for the next event, at most until `deadline` (in seconds of time.monotonic).

        Raises ClientError if the janitor has ended.
        """
        while (event := next(self._happened, None)) is None:
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                return TimedOut()
            self._happened = self.poll(seconds)
        return event

    def poll(self, seconds: float | None = 0) -> Iterator[Event]:
        """The events of the sources that have some now, or have the first within `seconds`."""
        for key, _ in self._selector.select(seconds):
            # The caller may have forgotten this source because of the event before.
            if self._selector.get_map().get(key.fd) is key:
                yield from cast("Source[Event]", key.fileobj).events()

    def fileno(self) -> int:
        """Readable when there are events, for use in another event loop."""
        return self._selector.fileno()
