"""How often, and how much at once, somebody may do something. (Throttle: test_throttle.py.)"""

from spicetunnel.broker.bounds import AtOnce, Rate
from tests.unit.broker.test_throttle import Clock


def test_rate_allows_a_burst_and_then_a_steady_pace() -> None:
    clock = Clock()
    rate = Rate(3, 2.0, clock)
    assert [rate.allows("anne") for _ in range(5)] == [True, True, True, False, False]
    clock.now = 0.5
    assert [rate.allows("anne") for _ in range(2)] == [True, False]
    clock.now = 100.0
    assert [rate.allows("anne") for _ in range(4)] == [True, True, True, False]


def test_rate_counts_each_key_separately() -> None:
    rate = Rate(1, 1.0, Clock())
    assert rate.allows("anne")
    assert rate.allows("bob")
    assert not rate.allows("anne")


def test_rate_forgets_keys_that_do_nothing() -> None:
    clock = Clock()
    rate = Rate(1, 1.0, clock)
    for number in range(1000):
        rate.allows(number)
    clock.now = 2.0
    rate.allows("another")
    assert len(rate._free_at) == 1


def test_at_once_allows_so_many_until_one_leaves() -> None:
    at_once = AtOnce()
    assert [at_once.enter("anne", 2) for _ in range(3)] == [True, True, False]
    assert at_once.enter("bob", 2)
    at_once.leave("anne")
    assert at_once.enter("anne", 2)
    for who in ("anne", "anne", "bob"):
        at_once.leave(who)
    assert not at_once._now
