"""How often a person may ask for a session."""

import time
from collections import deque
from collections.abc import Callable

from spicetunnel.common.errors import BusyError

_SPAN = 60.0  # seconds


class Throttle:
    """Counts what each person asked for within the last minute, granted or not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[int, str], deque[float]] = {}

    def admit(self, uid: int, user: str, limit: int) -> None:
        """Raises BusyError where it is more than `limit` a minute."""
        now = self._clock()
        self._forget(now - _SPAN)
        times = self._asked.setdefault((uid, user), deque())
        if len(times) >= limit:
            wait = max(1, round(times[0] + _SPAN - now))
            raise BusyError(f"you have asked {limit} times within a minute", f"wait {wait} s")
        times.append(now)

    def _forget(self, before: float) -> None:
        for key, times in list(self._asked.items()):
            while times and times[0] <= before:
                times.popleft()
            if not times:
                del self._asked[key]
