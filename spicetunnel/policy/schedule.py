"""When a grant holds: windows in local time, in one time zone.

One rule covers everything, the two nights on which the clocks change included: **a window is open
whenever a clock on the wall, in the schedule's zone, shows a time inside it.** So in spring nobody
has the skipped hour, and in autumn the repeated hour counts twice.

A window over midnight belongs to the day on which it opens: `Sat 22:00-06:00` is Saturday's, and
the dates (`starts`, `ends`, `except`) are compared with that Saturday.
"""

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from spicetunnel.policy.problems import quote

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = frozenset(range(7))
DAY_MINUTES = 24 * 60

#: Days to search after each date on which something may change. Two weeks, because a weekly window
#: may fall into the hour that is skipped in spring.
_AHEAD = 15

_ONE_DAY = timedelta(days=1)
_TIMES = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Window:
    """Open on `days` (Monday is 0), from minute `start` of the day until before minute `end`.

    If `end` is not after `start`, the window runs over midnight.
    """

    days: frozenset[int] = EVERY_DAY
    start: int = 0
    end: int = DAY_MINUTES

    def __str__(self) -> str:
        """As it is written in a map: `Mon-Fri 17:00-22:00`."""
        times = f"{_clock(self.start)}-{_clock(self.end)}"
        return times if self.days == EVERY_DAY else f"{_day_names(self.days)} {times}"

    def opened_on(self, weekday: int, minute: int) -> int | None:
        """How many days ago the window opened, 0 or 1; None if it is closed at this time."""
        over_midnight = self.end <= self.start
        before_end = minute < self.end
        if weekday in self.days and minute >= self.start and (over_midnight or before_end):
            return 0
        if over_midnight and before_end and (weekday - 1) % 7 in self.days:
            return 1
        return None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Windows, and the dates on which they may open. By default, always open."""

    zone: ZoneInfo
    windows: tuple[Window, ...] = (Window(),)
    starts: date = date.min
    ends: date = date.max  # the last day, which still counts
    except_: tuple[tuple[date, date], ...] = ()  # first and last day of each
    expires: datetime | None = None  # from this moment on, closed for good

    def is_open(self, moment: datetime) -> bool:
        """Whether the schedule holds at `moment`, an aware datetime."""
        # In UTC, because Python compares two datetimes of one zone by their local time.
        if self.expires and moment.astimezone(UTC) >= self.expires.astimezone(UTC):
            return False
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        weekday, today = local.weekday(), local.date()
        for window in self.windows:
            ago = window.opened_on(weekday, minute)
            if ago is not None and self._may_open_on(today - ago * _ONE_DAY):
                return True
        return False

    def next_change(self, moment: datetime) -> datetime | None:
        """The first moment after `moment` at which the schedule opens or closes; None if never."""
        return next_change([self], moment)

    def next_opening(self, moment: datetime) -> datetime | None:
        """`moment` itself if the schedule is open then; None if it never opens again."""
        return moment if self.is_open(moment) else self.next_change(moment)

    @property
    def is_always_open(self) -> bool:
        dated = self.except_ or self.starts > date.min or self.ends < date.max
        return not (dated or self.expires) and _WHOLE_WEEK in self.windows

    def _may_open_on(self, day: date) -> bool:
        if not self.starts <= day <= self.ends:
            return False
        return not any(first <= day <= last for first, last in self.except_)


_WHOLE_WEEK = Window()


def next_change(schedules: Sequence[Schedule], moment: datetime) -> datetime | None:
    """The first moment after `moment` at which the first of them opens or the last one closes.

    None if that never happens. All of them must have the same zone.
    """
    if any(schedule.is_always_open for schedule in schedules):
        return None
    now_open = any(schedule.is_open(moment) for schedule in schedules)
    for change in _candidates(schedules, moment):
        if any(schedule.is_open(change) for schedule in schedules) != now_open:
            return change
    return None


def _candidates(schedules: Sequence[Schedule], moment: datetime) -> Iterator[datetime]:
    """Every moment after `moment` at which one of them may change, in order."""
    ends = sorted(s.expires.astimezone(UTC) for s in schedules if s.expires)
    in_order = heapq.merge(ends, _turns_of_windows(schedules, moment))
    yield from (each for each in in_order if each > moment)


def _turns_of_windows(schedules: Sequence[Schedule], moment: datetime) -> Iterator[datetime]:
    """When a window may open or close, from the day of `moment` on."""
    ends = {m for s in schedules for w in s.windows for m in (w.start, w.end % DAY_MINUTES)}
    minutes = sorted({0, *ends})
    for zone in {schedule.zone for schedule in schedules}:
        for day in _days(schedules, moment.astimezone(zone).date()):
            yield from _moments(day, minutes, zone)


def _days(schedules: Sequence[Schedule], today: date) -> Iterator[date]:
    """The days on which one may change, in order: two weeks from today and from each date."""
    dates = {today}
    for schedule in schedules:
        spans = [(schedule.starts, schedule.ends), *schedule.except_]
        dates |= {day for first, last in spans for day in (first, _after(last))}
        if schedule.expires:  # another one's window may be open then, and close later
            dates.add(schedule.expires.astimezone(schedule.zone).date())
    done = today - _ONE_DAY
    for begin in sorted(each for each in dates if today <= each < date.max):
        day = max(begin - _ONE_DAY, done) if begin > today else today
        while day < min(begin, date.max - 2 * _AHEAD * _ONE_DAY) + _AHEAD * _ONE_DAY:
            if day > done:
                yield day
                done = day
            day += _ONE_DAY


def _after(day: date) -> date:
    return day if day == date.max else day + _ONE_DAY


def _moments(day: date, minutes: list[int], zone: ZoneInfo) -> list[datetime]:
    """Every moment of that day at which a clock shows one of these minutes, or is set."""
    found = {_instant(day, minute, fold, zone) for minute in minutes for fold in (0, 1)}
    begin, end = _instant(day, 0, 0, zone), _instant(day + _ONE_DAY, 0, 1, zone)
    if begin.astimezone(zone).utcoffset() != end.astimezone(zone).utcoffset():
        found.add(_clock_set(begin, end, zone))
    return sorted(found)


def _instant(day: date, minute: int, fold: int, zone: ZoneInfo) -> datetime:
    wall = datetime.combine(day, time(minute // 60, minute % 60, fold=fold), zone)
    return wall.astimezone(UTC)


def _clock_set(begin: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """The second between the two at which the zone's offset changes."""
    before = begin.astimezone(zone).utcoffset()
    while end - begin > timedelta(seconds=1):
        middle = begin + (end - begin) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            begin = middle
        else:
            end = middle
    return end


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _day_names(days: frozenset[int]) -> str:
    """`Mon-Wed,Sat`: three or more days in a row as a range."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(
        f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[d] for d in run)
        for run in runs
    )


class WhenError(ValueError):
    """The text is not a window; the message says what it should be. `hint` may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse_windows(text: str) -> tuple[Window, ...]:
    """The windows of one `when`: `[DAYS] [TIMES]`, as `Mon-Fri,Sun 08:00-12:00,13:00-17:30`.

    Raises WhenError.
    """
    words = text.split()
    times = words.pop() if words and ":" in words[-1] else ""
    if len(words) > 1 or not (words or times):
        raise WhenError(f"must be days, times or both, not {quote(text)}")
    days = _parse_days(words[0]) if words else EVERY_DAY
    spans = [_parse_times(part) for part in times.split(",")] if times else [(0, DAY_MINUTES)]
    return tuple(Window(days, start, end) for start, end in spans)


def _parse_days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day_number(first)
        end = _day_number(last) if dash else begin
        days |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(days)


def _day_number(name: str) -> int:
    try:
        return DAYS.index(name)
    except ValueError:
        message = f"has no day {quote(name)}; the days are {', '.join(DAYS)}"
        raise WhenError(message, _meant_day(name)) from None


def _meant_day(name: str) -> str:
    """A hint for `Monday`, `mon` and `Mo`; empty for any other word."""
    start = name[:3].capitalize()
    meant = next((day for day in DAYS if len(start) > 1 and day.startswith(start)), "")
    return f"did you mean {quote(meant)}?" if meant else ""


def _parse_times(text: str) -> tuple[int, int]:
    found = _TIMES.fullmatch(text)
    if found is None:
        raise WhenError(f"has no times in {quote(text)}, write them like 17:00-22:00")
    hours, minutes, end_hours, end_minutes = map(int, found.groups())
    start, end = hours * 60 + minutes, end_hours * 60 + end_minutes
    if minutes > 59 or end_minutes > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
        raise WhenError(f"has a time in {quote(text)} that no clock shows")
    if start == end:
        raise WhenError(f"has an empty window, {quote(text)}; the whole day is 00:00-24:00")
    return start, end
