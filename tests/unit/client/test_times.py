"""The user's local time is Berlin's here."""

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from spice_connect.times import retold, spoken

NOW = datetime(2026, 11, 25, 12, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("instant", "words"),
    [
        ("2026-11-25T17:00:00+01:00", "17:00"),
        ("2026-11-30T00:00:00+01:00", "Mon 00:00"),
        ("2026-11-24T17:00:00+01:00", "Tue 17:00"),
        ("2026-12-02T09:00:00+01:00", "2026-12-02 09:00"),  # a Wednesday, as today
        ("2027-07-01T09:00:00+02:00", "2027-07-01 09:00"),
        ("2026-11-26T00:30:00+09:00", "16:30 CET"),
        ("2027-07-01T09:00:00+00:00", "2027-07-01 11:00 CEST"),
        ("2026-11-25T17:00", "2026-11-25 17:00"),
        ("tomorrow\x1b[2J, and so on", "tomorrow\x1b[2J, an"),
        ("0001-01-01T00:00:00+23:00", "0001-01-01 00:00"),
        ("", ""),
    ],
)
def test_a_moment_in_words(instant: str, words: str) -> None:
    assert spoken(instant, NOW) == words


def test_the_servers_words_are_replaced() -> None:
    text = "in use by anne since 10:04 (Asia/Tokyo)"
    times = {"10:04 (Asia/Tokyo)": "2031-01-01T10:04:00+09:00"}
    assert retold(text, times) == "in use by anne since 2031-01-01 02:04 CET"
