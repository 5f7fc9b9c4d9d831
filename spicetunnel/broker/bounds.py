"""Bounds on how often, and how much at once, somebody may do something: nobody can take the broker
from the others.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable

from spicetunnel.common.errors import BusyError

_SPAN = 60.0  # seconds
_TIDY = 1000  # keys, and those that are not in use any more are forgotten


class Rate:
    """For each key, `burst` times at once, and `a_second` times a second in the long run.

    One number a key, and constant time: it also stands before work that a flood asks for. (The
    generic cell rate algorithm, ITU-T I.371.)
    """

    def __init__(
        self, burst: int, a_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 1 / a_second
        self._tolerance = burst * self._interval
        self._clock = clock
        self._free_at: dict[Hashable, float] = {}  # when all that was done would have been in time
        self._tidy_at = _TIDY

    def allows(self, key: Hashable) -> bool:
        """Whether it may be done now; if so, it counts."""
        now = self._clock()
        free_at = max(now, self._free_at.get(key, now)) + self._interval
        if free_at - now > self._tolerance + self._interval / 2:
            return False
        self._free_at[key] = free_at
        if len(self._free_at) > self._tidy_at:
            self._tidy(now)
        return True

    def _tidy(self, now: float) -> None:
        self._free_at = {key: at for key, at in self._free_at.items() if at > now}
        self._tidy_at = max(_TIDY, 2 * len(self._free_at))


class AtOnce:
    """Counts what each key does at this moment."""

    def __init__(self) -> None:
        self._now: Counter[Hashable] = Counter()

    def enter(self, key: Hashable, most: int) -> bool:
        """Whether the key may do one thing more; if so, `leave` must follow."""
        if self._now[key] >= most:
            return False
        self._now[key] += 1
        return True

    def leave(self, key: Hashable) -> None:
        self._now[key] -= 1
        if not self._now[key]:
            del self._now[key]


class Throttle:
    """Counts each person's requests of one kind within the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[str, int, str], deque[float]] = {}
        self._tidied = clock()

    def admit(self, who: tuple[str, int, str], limit: int) -> None:
        """`who` asks for an operation: its name, the uid, the person.

        Raises BusyError where it is more than `limit` a minute; that does not count.
        """
        now = self._clock()
        self._tidy(now)
        times = self._asked.setdefault(who, deque())
        _drop_older(times, now - _SPAN)
        if len(times) >= limit:
            wait = max(1, round(times[0] + _SPAN - now))
            raise BusyError(f"you have asked {limit} times within a minute", f"wait {wait} s")
        times.append(now)

    def _tidy(self, now: float) -> None:
        """Once a minute: it goes through everybody."""
        if now - self._tidied < _SPAN:
            return
        self._tidied = now
        for who, times in list(self._asked.items()):
            _drop_older(times, now - _SPAN)
            if not times:
                del self._asked[who]


def _drop_older(times: deque[float], before: float) -> None:
    while times and times[0] <= before:
        times.popleft()
