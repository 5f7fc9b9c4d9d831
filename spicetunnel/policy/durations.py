"""Durations as people write them: `90s`, `10m`, `2h`, `3d`, or combined: `1h30m`."""

import re
from datetime import timedelta

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,4})s)?", re.ASCII)

HINT = "write it like 90s, 10m, 2h, 3d or 1h30m"


def parse_duration(text: str) -> timedelta:
    """Raises ValueError if `text` is not a duration, or is zero."""
    found = _DURATION.fullmatch(text)
    numbers = found.groups("0") if found else ()
    seconds = sum(int(n) * unit for n, unit in zip(numbers, _UNITS.values(), strict=False))
    if seconds == 0:
        raise ValueError(f"not a duration: {text!r}")
    return timedelta(seconds=seconds)


def written(span: timedelta) -> str:
    """In the form that `parse_duration` reads, in whole seconds."""
    left, parts = int(span.total_seconds()), []
    for unit, seconds in _UNITS.items():
        count, left = divmod(left, seconds)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"
