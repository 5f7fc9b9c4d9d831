"""One week of schedules: on which days access is open, from when until when."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from spicetunnel.policy.schedule import DAYS, Schedule, next_change

_ONE_DAY = timedelta(days=1)

Span = tuple[datetime, datetime]  # in UTC: open from the first until before the second


@dataclass(frozen=True, slots=True)
class Day:
    """One day in a time zone. `begin` and `end` are in UTC."""

    date: date
    begin: datetime
    end: datetime
    zone: ZoneInfo

    def __str__(self) -> str:
        return f"{DAYS[self.date.weekday()]} {self.date:%d}"

    @property
    def clock_set(self) -> str:
        """Whether the clock changes on that day, in words; empty on most days."""
        before, after = (
            each.astimezone(self.zone).utcoffset() or timedelta() for each in (self.begin, self.end)
        )
        if before == after:
            return ""
        return f"{self}: the clock goes {'forward' if after > before else 'back'}"

    def cell(self, spans: tuple[Span, ...]) -> str:
        """The spans, one a line: `17-22`, `all day`."""
        return "\n".join(self._times(*span) for span in spans) or "—"

    def _times(self, start: datetime, end: datetime) -> str:
        if (start, end) == (self.begin, self.end):
            return "all day"
        until = "24" if end == self.end else _clock(end.astimezone(self.zone))
        times = f"{_clock(start.astimezone(self.zone))}-{until}"
        # Two times with minutes do not fit into a column.
        return times if len(times) <= len("all day") else times.replace("-", "-\n")


@dataclass(slots=True)
class Row:
    """The grants of one VM to the same people from the same place, and their week."""

    vm: str
    title: str
    who: str  # empty: nobody
    place: str
    days: tuple[Day, ...]
    schedules: list[Schedule] = field(default_factory=list)

    @property
    def zone(self) -> str:
        return str(self.days[0].zone)

    @property
    def spans(self) -> list[tuple[Day, tuple[Span, ...]]]:
        """The spans of each day, cut at midnight."""
        whole = spans_of(tuple(self.schedules), self.days[0].begin, self.days[-1].end)
        return [(day, tuple(_within(day, whole))) for day in self.days]


def week(day: date, zone: ZoneInfo) -> tuple[Day, ...]:
    """The seven days, Monday first, of the week that `day` is in."""
    monday = day - day.weekday() * _ONE_DAY
    dates = [monday + number * _ONE_DAY for number in range(8)]
    midnights = [datetime.combine(each, time(), zone).astimezone(UTC) for each in dates]
    return tuple(Day(dates[n], midnights[n], midnights[n + 1], zone) for n in range(7))


@cache  # in a large map, many grants have the same times
def spans_of(schedules: tuple[Schedule, ...], begin: datetime, end: datetime) -> tuple[Span, ...]:
    """The spans between two moments in which at least one of the schedules is open."""
    spans: list[Span] = []
    moment = begin
    while moment < end:
        change = min(next_change(schedules, moment) or end, end)
        if any(schedule.is_open(moment) for schedule in schedules):
            spans.append((moment, change))
        moment = change
    return tuple(spans)


def _within(day: Day, spans: Iterable[Span]) -> Iterator[Span]:
    for start, end in spans:
        if start < day.end and end > day.begin:
            yield max(start, day.begin), min(end, day.end)


def _clock(local: datetime) -> str:
    return f"{local:%H:%M}" if local.minute else f"{local:%H}"
