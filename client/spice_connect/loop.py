"""The event loop: descriptors that became readable, and one end."""

import selectors
import time
from collections.abc import Callable

from spice_connect.janitor import Janitor


class Loop:
    def __init__(self, janitor: Janitor) -> None:
        self._selector = selectors.DefaultSelector()
        self._deadline: float | None = None
        self.watch(janitor.fileno(), janitor.gone)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        self._selector.unregister(fd)

    def stop(self, grace: float = 0) -> None:
        """End `run`, now or after a moment in which callbacks still come."""
        self._deadline = time.monotonic() + grace

    def run(self) -> None:
        """Until stopped, or until a callback raises."""
        while (left := self._left()) is None or left > 0:
            for key, _ in self._selector.select(left):
                key.data()

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()
