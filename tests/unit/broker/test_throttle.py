"""How many requests a person may make within a minute."""

import pytest

from spicetunnel.broker.bounds import Throttle
from spicetunnel.common.errors import BusyError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_refusal_over_the_limit_says_how_long_to_wait() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for clock.now in (0.0, 10.0, 20.0):
        throttle.admit(("open", 1, "anne"), 3)
    with pytest.raises(BusyError) as refused:
        throttle.admit(("open", 1, "anne"), 3)
    assert refused.value.reason == "you have asked 3 times within a minute"
    assert refused.value.hint == "wait 40 s"
    clock.now = 60.0
    throttle.admit(("open", 1, "anne"), 3)


def test_each_account_person_and_operation_is_counted_separately() -> None:
    throttle = Throttle(Clock())
    throttle.admit(("open", 1, "anne"), 1)
    throttle.admit(("open", 1, "bob"), 1)
    throttle.admit(("open", 2, "anne"), 1)
    throttle.admit(("list", 2, "anne"), 1)  # another operation
    with pytest.raises(BusyError):
        throttle.admit(("open", 2, "anne"), 1)


def test_requests_over_the_limit_do_not_count() -> None:
    """Otherwise a client that keeps trying would never be admitted."""
    clock = Clock()
    throttle = Throttle(clock)
    throttle.admit(("open", 1, "anne"), 1)
    for clock.now in (20.0, 40.0, 59.0):
        with pytest.raises(BusyError):
            throttle.admit(("open", 1, "anne"), 1)
    clock.now = 60.0
    throttle.admit(("open", 1, "anne"), 1)


def test_requests_older_than_a_minute_are_forgotten() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for uid in range(100):
        throttle.admit(("open", uid, "x"), 1)
    clock.now = 61.0
    throttle.admit(("open", 500, "x"), 1)
    assert len(throttle._asked) == 1
