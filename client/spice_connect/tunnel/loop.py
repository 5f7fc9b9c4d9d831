"""The event loop: descriptors that became readable, and one end."""

import contextlib
import selectors
import time
from collections.abc import Callable

from spice_connect.errors import ClientError
from spice_connect.tunnel.janitor import Janitor


class Loop:
    def __init__(self, janitor: Janitor) -> None:
        self._selector = selectors.EpollSelector()
        self._deadline: float | None = None
        self.watch(janitor.fileno(), janitor.gone)

    def close(self) -> None:
        self._selector.close()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        """To be called before `fd` is closed; no harm if it is not watched."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def stop(self, grace: float = 0) -> None:
        """End `run`, now or after a moment in which callbacks still come."""
        self._deadline = time.monotonic() + grace

    def go_on(self) -> None:
        """After a `stop` that was too soon."""
        self._deadline = None

    def run(self) -> None:
        """Until stopped, or until a callback raises."""
        while (left := self._left()) is None or left > 0:
            self.run_once(left)

    def run_once(self, seconds: float | None = 0) -> None:
        """What there is to do now, or comes first within so long."""
        for key, _ in self._selector.select(seconds):
            if self._selector.get_map().get(key.fd) is key:  # not forgotten by one before it
                key.data()

    def fileno(self) -> int:
        """Readable where there is something to do: for a loop that this one is a part of."""
        return self._selector.fileno()

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()


class Fence(Loop):
    """A part of a loop whose failures are its own, and end not the whole."""

    def __init__(self, loop: Loop, on_failure: Callable[[ClientError], None]) -> None:
        self._whole, self._on_failure = loop, on_failure

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        def fenced() -> None:
            try:
                callback()
            except ClientError as error:
                self._on_failure(error)

        self._whole.watch(fd, fenced)

    def forget(self, fd: int) -> None:
        self._whole.forget(fd)
