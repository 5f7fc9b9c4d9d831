"""When a warning is due, and how it is worded."""

from datetime import UTC, datetime, timedelta

import pytest

from spicetunnel.broker.review import Countdown, in_words

END = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
WARNINGS = (timedelta(minutes=10), timedelta(minutes=1))


def before(**span: float) -> datetime:
    return END - timedelta(**span)


def test_each_warning_is_given_once() -> None:
    countdown = Countdown()
    moments = [before(minutes=m) for m in (11, 10, 9.9, 5, 1, 0.5, 0)]
    due = [countdown.is_due(END, WARNINGS, moment) for moment in moments]
    assert due == [False, True, False, False, True, False, False]


def test_two_overdue_warnings_are_given_as_one() -> None:
    countdown = Countdown()
    assert countdown.is_due(END, WARNINGS, before(seconds=30))
    assert not countdown.is_due(END, WARNINGS, before(seconds=20))


def test_new_end_has_its_own_warnings() -> None:
    countdown = Countdown()
    assert countdown.is_due(END, WARNINGS, before(minutes=10))
    later = END + timedelta(hours=1)
    assert not countdown.is_due(later, WARNINGS, before(minutes=9))
    assert countdown.is_due(later, WARNINGS, later - timedelta(minutes=9))


def test_no_warning_without_an_end_or_after_it() -> None:
    countdown = Countdown()
    assert not countdown.is_due(None, WARNINGS, END)
    assert not countdown.is_due(END, WARNINGS, END)
    assert countdown.next(None, WARNINGS, END) is None
    assert countdown.next(END, WARNINGS, END) is None


def test_next_is_the_nearest_future_warning() -> None:
    countdown = Countdown()
    assert countdown.next(END, WARNINGS, before(hours=1)) == before(minutes=10)
    assert countdown.next(END, WARNINGS, before(minutes=10)) == before(minutes=1)
    assert countdown.next(END, (), before(hours=1)) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "in 0 seconds"),
        (1, "in 1 second"),
        (45.4, "in 45 seconds"),
        (60, "in 1 minute"),
        (89, "in 89 seconds"),
        (90, "in 2 minutes"),
        (599.7, "in 10 minutes"),
        (3600, "in 1 hour"),
        (3899, "in 1 hour 5 minutes"),
        (7260, "in 2 hours 1 minute"),
        (-5, "in 0 seconds"),
    ],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
