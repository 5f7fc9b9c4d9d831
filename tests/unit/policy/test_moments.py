"""The words for a moment, and the instant beside them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from spicetunnel.policy.moments import clock, dated, instant, zone_name

TOKYO = ZoneInfo("Asia/Tokyo")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_words_name_the_zone_and_come_with_the_instant() -> None:
    assert dated(NOON, TOKYO).times == {
        "Mon 2026-11-23 at 21:00 (Asia/Tokyo)": "2026-11-23T21:00:00+09:00"
    }


def test_the_weekday_is_said_if_it_is_another_one_there() -> None:
    evening = datetime(2026, 11, 23, 16, tzinfo=UTC)
    assert clock(NOON, TOKYO, NOON).words == "21:00 (Asia/Tokyo)"
    assert clock(evening, TOKYO, NOON).words == "Tue 01:00 (Asia/Tokyo)"
    assert clock(evening, TOKYO, evening).words == "01:00 (Asia/Tokyo)"


def test_a_zone_from_a_file_is_called_as_its_clock_is() -> None:
    with open("/usr/share/zoneinfo/Asia/Tokyo", "rb") as file:
        local = ZoneInfo.from_file(file, "the server's local time")
    assert clock(NOON, local, NOON).words == "21:00 (JST)"
    assert zone_name(NOON, local) == "JST"


def test_never_is_empty() -> None:
    assert (instant(None, TOKYO), zone_name(None, TOKYO)) == ("", "")
