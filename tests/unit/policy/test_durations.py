"""Durations as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicetunnel.policy.durations import parse_duration, written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200), ("1h30m", 5400), ("1d1h1m1s", 90061)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "m", "0m", "-5m", "5 m", "5M", "30m1h", "1.5h", "12345s", "5m\n", "\u0665m"]
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(1, 9999 * 86400).map(lambda seconds: timedelta(seconds=seconds)))
def test_written_duration_is_read_back(span: timedelta) -> None:
    assert parse_duration(written(span)) == span
