"""The warnings ahead of a session's end."""

from collections.abc import Iterable
from datetime import datetime, timedelta


class Countdown:
    """Of one session. A warning is a span of time before the end; each is given once for an end."""

    def __init__(self) -> None:
        self._given: set[tuple[datetime, timedelta]] = set()

    def is_due(self, until: datetime | None, warnings: Iterable[timedelta], now: datetime) -> bool:
        """Whether to warn now; not again for the same."""
        if until is None or now >= until:
            return False
        reached = {(until, each) for each in warnings if until - each <= now}
        fresh = reached - self._given
        self._given |= reached
        return bool(fresh)

    def next(
        self, until: datetime | None, warnings: Iterable[timedelta], now: datetime
    ) -> datetime | None:
        """When one will be due."""
        ahead = (until - each for each in warnings) if until else ()
        return min((moment for moment in ahead if moment > now), default=None)


def in_words(left: timedelta) -> str:
    """`in 10 minutes`, `in 45 seconds`, `in 1 hour 5 minutes`, rounded to what matters."""
    seconds = max(0, round(left.total_seconds()))
    if seconds < 90:
        return f"in {_count(seconds, 'second')}" if seconds != 60 else "in 1 minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [_count(hours, "hour")] if hours else []
    parts += [_count(minutes, "minute")] if minutes else []
    return f"in {' '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
