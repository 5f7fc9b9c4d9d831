"""Schedules compared with a slow and obvious oracle: look at the clock each minute."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicetunnel.policy.schedule import (
    DAY_MINUTES,
    DAYS,
    Schedule,
    WhenError,
    Window,
    next_change,
    parse_windows,
)

MINUTE = timedelta(minutes=1)
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of daylight saving time
    "America/Sao_Paulo",  # once changed at midnight: a day without 00:00
    "Pacific/Apia",  # once skipped a whole day
    "Asia/Kathmandu",
    "UTC",
]
#: Moments around which the clocks are set, in the zones above, and one of no note.
NIGHTS = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2018, 11, 4, 3, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2026, 7, 1, 12, tzinfo=UTC),
]


def shows(schedule: Schedule, moment: datetime) -> bool:
    """The oracle: look at the clock and the calendar on the wall."""
    if schedule.expires and moment >= schedule.expires:
        return False
    wall = moment.astimezone(schedule.zone)
    minute = wall.hour * 60 + wall.minute
    for window in schedule.windows:
        for opened in (wall.date(), wall.date() - timedelta(days=1)):
            since = minute + DAY_MINUTES * (wall.date() - opened).days
            length_end = window.end if window.end > window.start else window.end + DAY_MINUTES
            if opened.weekday() not in window.days or not window.start <= since < length_end:
                continue
            if not schedule.starts <= opened <= schedule.ends:
                continue
            if any(first <= opened <= last for first, last in schedule.except_):
                continue
            return True
    return False


def oracle_next_change(schedule: Schedule, moment: datetime, days: int) -> datetime | None:
    """Walk minute by minute. A change between two is at the later one, or at the exact end."""
    now, end = shows(schedule, moment), schedule.expires
    if now and end and end - moment < timedelta(days=days):
        before = oracle_next_change(replace(schedule, expires=None), moment, days)
        return min(before or end, end)
    step = moment.replace(second=0, microsecond=0) + MINUTE
    for _ in range(days * DAY_MINUTES):
        if shows(schedule, step) != now:
            return step
        step += MINUTE
    return None


minutes = st.one_of(
    st.integers(0, DAY_MINUTES - 1),
    st.sampled_from([0, 60, 90, 119, 120, 121, 150, 179, 180, 181, 1439]),
)
windows = st.builds(
    Window,
    st.frozensets(st.integers(0, 6), min_size=1),
    minutes,
    minutes.map(lambda m: m or DAY_MINUTES),
).filter(lambda w: w.start != w.end)
moments = st.builds(
    lambda night, offset: night + offset * MINUTE,
    st.sampled_from(NIGHTS),
    st.integers(-3 * DAY_MINUTES, 3 * DAY_MINUTES),
)
#: An exact end: before, at or after a moment, also within its minute and its second.
ends = st.one_of(
    st.timedeltas(timedelta(minutes=-2), timedelta(days=6)),
    st.sampled_from([timedelta(0), timedelta(microseconds=1), timedelta(seconds=1), MINUTE]),
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, datetime]:
    moment = draw(moments)
    near = st.integers(-3, 6).map(lambda days: moment.date() + timedelta(days=days))
    spans = st.tuples(near, st.integers(0, 2)).map(lambda s: (s[0], s[0] + timedelta(days=s[1])))
    return Schedule(
        ZoneInfo(draw(st.sampled_from(ZONES))),
        tuple(draw(st.lists(windows, min_size=1, max_size=3))),
        draw(st.just(date.min) | near),
        draw(st.just(date.max) | near),
        tuple(draw(st.lists(spans, max_size=2))),
        draw(st.none() | ends.map(lambda end: moment + end)),
    ), moment


@given(schedules())
@settings(max_examples=400, deadline=None)
def test_open_when_the_wall_clock_says_so(case: tuple[Schedule, datetime]) -> None:
    schedule, moment = case
    for minute in range(0, 3 * DAY_MINUTES, 7):
        at = moment + minute * MINUTE
        assert schedule.is_open(at) == shows(schedule, at)


@given(schedules())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_next_change_is_the_first_minute_that_differs(case: tuple[Schedule, datetime]) -> None:
    schedule, moment = case
    expected = oracle_next_change(schedule, moment, 9)
    found = schedule.next_change(moment)
    if expected is None:
        assert found is None or found - moment > timedelta(days=8)
    else:
        assert found == expected


@given(schedules())
@settings(max_examples=200, deadline=None)
def test_next_opening_is_open_and_not_in_the_past(case: tuple[Schedule, datetime]) -> None:
    schedule, moment = case
    opening = schedule.next_opening(moment)
    if opening is None:
        return
    assert opening >= moment
    assert schedule.is_open(opening)
    assert opening == moment or not schedule.is_open(opening - timedelta(seconds=1))


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


def berlin(when: str) -> Schedule:
    return Schedule(BERLIN, parse_windows(when))


@pytest.mark.parametrize(
    ("when", "moment", "change"),
    [
        # an ordinary evening
        ("Mon-Fri 17:00-22:00", "2026-11-23 18:00", "2026-11-23 22:00"),
        ("Mon-Fri 17:00-22:00", "2026-11-23 16:59", "2026-11-23 17:00"),
        ("Mon-Fri 17:00-22:00", "2026-11-27 22:00", "2026-11-30 17:00"),
        # over midnight: Saturday's window, on Sunday morning
        ("Sat 22:00-06:00", "2026-11-29 05:59", "2026-11-29 06:00"),
        ("Sat 22:00-06:00", "2026-11-29 06:00", "2026-12-05 22:00"),
        # from the end of the week to its start
        ("Fri-Mon", "2026-11-23 12:00", "2026-11-24 00:00"),
        ("Mon,Tue", "2026-11-23 12:00", "2026-11-25 00:00"),
        # the night the clock jumps from 02:00 to 03:00: a window that began before just goes on
        ("Sat 22:00-06:00", "2026-03-29 01:59", "2026-03-29 06:00"),
        # a window that ends in the skipped hour ends when it is skipped
        ("Sun 01:00-02:30", "2026-03-29 01:30", "2026-03-29 03:00"),
        # one that begins in it begins after it
        ("Sun 02:30-04:00", "2026-03-29 01:30", "2026-03-29 03:00"),
        # one that lies in it is not open that night, but a week later
        ("Sun 02:10-02:50", "2026-03-29 01:30", "2026-04-05 02:10"),
    ],
)  # fmt: skip
def test_changes(when: str, moment: str, change: str) -> None:
    assert berlin(when).next_change(at(moment)) == at(change)


def test_the_repeated_hour_counts_twice() -> None:
    """The night of 2026-10-25: 02:00 to 03:00 comes twice, at 00:00 and at 01:00 UTC."""
    schedule = berlin("Sun 02:15-02:45")
    changes, moment = [], datetime(2026, 10, 24, 22, tzinfo=UTC)
    for _ in range(4):
        change = schedule.next_change(moment)
        assert change
        changes.append(f"{change:%H:%M}")
        moment = change
    assert changes == ["00:15", "00:45", "01:15", "01:45"]


def test_dates_are_compared_with_the_day_the_window_opens() -> None:
    schedule = Schedule(BERLIN, parse_windows("22:00-06:00"), ends=date(2026, 11, 21))
    assert schedule.is_open(at("2026-11-22 05:59"))
    assert not schedule.is_open(at("2026-11-22 22:00"))
    assert schedule.next_change(at("2026-11-22 06:00")) is None


@pytest.mark.parametrize(
    ("schedule", "moment", "opening"),
    [
        (Schedule(BERLIN, starts=date(2031, 5, 1)), "2026-01-01 00:00", "2031-05-01 00:00"),
        (
            Schedule(BERLIN, parse_windows("Mon 08:00-09:00"), starts=date(2031, 5, 1)),
            "2026-01-01 00:00",
            "2031-05-05 08:00",
        ),
        (
            Schedule(BERLIN, except_=((date(2026, 12, 24), date(2027, 1, 6)),)),
            "2026-12-24 00:00",
            "2027-01-07 00:00",
        ),
    ],
)
def test_openings_years_ahead(schedule: Schedule, moment: str, opening: str) -> None:
    assert schedule.next_opening(at(moment)) == at(opening)


@pytest.mark.parametrize("zone", [UTC, BERLIN, ZoneInfo("America/New_York")])
def test_exact_end_is_a_moment_not_a_local_time(zone: tzinfo) -> None:
    """In the repeated hour: 00:30 UTC is the first 02:30 in Berlin."""
    end = datetime(2026, 10, 25, 0, 30, 7, tzinfo=UTC)
    schedule = Schedule(BERLIN, expires=end.astimezone(zone))
    before, after = end - timedelta(microseconds=1), end + timedelta(minutes=45)
    assert schedule.is_open(before.astimezone(BERLIN))
    assert schedule.next_change(before.astimezone(BERLIN)) == end
    for moment in (end, after):
        assert not schedule.is_open(moment.astimezone(BERLIN))
        assert schedule.next_change(moment.astimezone(BERLIN)) is None


def test_of_several_schedules_the_last_end_counts() -> None:
    moment = at("2026-11-23 12:00")
    first, last = moment + MINUTE, moment + 2 * MINUTE
    both = [Schedule(BERLIN, expires=last), Schedule(BERLIN, expires=first)]
    assert next_change(both, moment) == last
    assert next_change([*both, berlin("11:00-12:30")], moment) == at("2026-11-23 12:30")
    assert next_change([*both, Schedule(BERLIN)], moment) is None


def test_window_open_at_a_far_end_goes_on() -> None:
    moment, far = at("2026-11-23 12:00"), at("2026-12-22 18:00")
    lent = Schedule(BERLIN, expires=far)
    assert next_change([lent, berlin("Tue 17:00-22:00")], moment) == at("2026-12-22 22:00")
    assert next_change([lent, berlin("Wed 17:00-22:00")], moment) == far


def test_no_window_opens_after_the_end() -> None:
    schedule = replace(berlin("17:00-22:00"), expires=at("2026-11-23 17:00"))
    assert schedule.next_opening(at("2026-11-23 12:00")) is None


def test_schedule_that_never_changes_has_no_next_change() -> None:
    assert Schedule(BERLIN).next_change(at("2026-01-01 00:00")) is None
    assert berlin("Mon-Sun 00:00-24:00").next_change(at("2026-03-29 00:00")) is None
    over = Schedule(BERLIN, ends=date(2020, 1, 1))
    assert over.next_opening(at("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon", [Window(frozenset({0}))]),
        ("Mon-Sun", [Window()]),
        ("Sat-Mon", [Window(frozenset({5, 6, 0}))]),
        ("Mon,Wed-Fri", [Window(frozenset({0, 2, 3, 4}))]),
        ("17:00-22:00", [Window(start=1020, end=1320)]),
        ("8:00-9:05", [Window(start=480, end=545)]),
        ("00:00-24:00", [Window()]),
        ("22:00-06:00", [Window(start=1320, end=360)]),
        ("22:00-00:00", [Window(start=1320, end=0)]),
        (
            "Mon 08:00-12:00,13:00-17:00",
            [Window(frozenset({0}), 480, 720), Window(frozenset({0}), 780, 1020)],
        ),
        ("  Mon   08:00-12:00 ", [Window(frozenset({0}), 480, 720)]),
    ],
)
def test_windows_are_read(text: str, expected: list[Window]) -> None:
    assert parse_windows(text) == tuple(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Mo", "monday", "mon", "Mon-", "-Mon", "Mon,,Tue", "Mon Tue", "Mon 17:00",
        "17:00", "17-22", "17:00-22:60", "24:00-25:00", "24:00-01:00", "17:00-17:00",
        "17:00-22:00 Mon", "Mon 17:00-22:00 Tue", "Mon 17:00\u201322:00",
        "Mon 17:00-22:00,", "\u0660\u0661:00-02:00", "00:00-00:00", "17:000-22:00",
        "Mon-Tue-Wed", "5pm-10pm",
    ],
)  # fmt: skip
def test_text_that_is_not_a_window_is_refused(text: str) -> None:
    with pytest.raises(WhenError) as refused:
        parse_windows(text)
    assert str(refused.value)


def test_days_are_named_in_order() -> None:
    assert [f"{date(2026, 11, 23 + n):%a}" for n in range(7)] == list(DAYS)
