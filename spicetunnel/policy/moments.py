"""Moments in what a person is told: the words, and beside them the instant.

Who reads the words on the server or by plain ssh has a clock of their own, so the words name their
zone. A client gets the instant too (`times` in docs/protocol.md, section 1), and says it by the
clock of its person.
"""

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Moment(NamedTuple):
    """`words`: as in the text. `instant`: ISO 8601 with the zone's offset."""

    words: str
    instant: str

    @property
    def times(self) -> dict[str, str]:
        return {self.words: self.instant}


def instant(moment: datetime | None, zone: ZoneInfo | None = None) -> str:
    """The moment in ISO 8601 with the zone's offset; without a zone, the server's. Empty for None.

    A `moment` has a time zone, here and below.
    """
    return moment.astimezone(zone).isoformat(timespec="seconds") if moment else ""


def zone_name(moment: datetime | None, zone: ZoneInfo | None) -> str:
    """The name of the zone in which `instant` says the moment; empty for None."""
    return _name_of_zone(moment.astimezone(zone)) if moment else ""


def dated(moment: datetime, zone: ZoneInfo) -> Moment:
    """`Mon 2026-12-28 at 17:00 (Europe/Berlin)`."""
    local = moment.astimezone(zone)
    words = f"{local:%a} {local:%Y-%m-%d} at {local:%H:%M} ({_name_of_zone(local)})"
    return Moment(words, instant(moment, zone))


def clock(moment: datetime, zone: ZoneInfo, now: datetime) -> Moment:
    """`17:00 (Europe/Berlin)`, with the weekday if that is not the day of `now` there."""
    local = moment.astimezone(zone)
    day = "" if local.date() == now.astimezone(zone).date() else f"{local:%a} "
    return Moment(f"{day}{local:%H:%M} ({_name_of_zone(local)})", instant(moment, zone))


def _name_of_zone(local: datetime) -> str:
    """`Europe/Berlin`. A zone read from a file has no name: `CET`, `+03`."""
    key = str(local.tzinfo)
    return key if " " not in key else local.tzname() or key
