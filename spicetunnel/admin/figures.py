"""Sizes, spans of time and moments, short enough for a table."""

import re
from datetime import datetime, timedelta

from spicetunnel.policy.durations import written

_UNITS = ("", "k", "M", "G")


def size(count: float) -> str:
    """Bytes in at most four characters, below ten terabytes: `950`, `1.2k`, `45M`."""
    for unit in _UNITS:
        if count < 999.5:
            return f"{count:.1f}{unit}" if unit and count < 9.95 else f"{count:.0f}{unit}"
        count /= 1000
    return f"{count:.1f}T"


def span(seconds: float) -> str:
    """A span in its two largest units: `3d2h`, `5m10s`."""
    parts = re.findall(r"\d+[dhms]", written(timedelta(seconds=seconds)))
    return "".join(parts[:2])


def clock(moment: datetime, now: datetime) -> str:
    """A moment on the server's clock, the nearer the finer: `17:02`, `Thu 17:02`, `2026-12-24`."""
    local, today = moment.astimezone(), now.astimezone().date()
    days = abs((local.date() - today).days)
    return f"{local:%H:%M}" if days == 0 else f"{local:%a %H:%M}" if days < 7 else f"{local:%F}"


def count(number: int, noun: str) -> str:
    """`1 vm`, `2 vms`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
