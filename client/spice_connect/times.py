"""Moments in the user's own local time.

The server sends instants in ISO 8601 with the offset of the VM's time zone. Where the user's clock
shows another time than a clock there, the user's zone is named.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

WEEK = timedelta(days=6)  # within which a weekday says which day is meant


def spoken(instant: str, now: datetime | None = None) -> str:
    """`17:00` today, `Mon 09:00` within a week, else `2030-01-01 00:00`; maybe with ` CET`.

    What is not an instant stays as the server wrote it. `now` is for tests.
    """
    try:
        theirs = datetime.fromisoformat(instant)
        if theirs.utcoffset() is None:
            raise ValueError
        local, now = theirs.astimezone(), (now or datetime.now()).astimezone()
        away = abs(local.date() - now.date())
    except (ValueError, OverflowError, OSError):
        return instant[:16].replace("T", " ")
    form = "%H:%M" if not away else "%a %H:%M" if away <= WEEK else "%Y-%m-%d %H:%M"
    zone = "" if local.utcoffset() == theirs.utcoffset() else f" {local.tzname()}"
    return f"{local:{form}}{zone}"


def retold(text: str, times: Mapping[str, str]) -> str:
    """The server's text, with its words for moments replaced by the user's (`times`)."""
    for words, instant in times.items():
        text = text.replace(words, spoken(instant))
    return text
