"""Options and arguments that several commands have: the map, JSON, moments, a VM's name."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta, tzinfo

import click

from spicetunnel.common.errors import UsageError
from spicetunnel.policy.durations import parse_duration
from spicetunnel.policy.problems import quote, suggest

DEFAULT_MAP = "/etc/spicetunnel/vms.yaml"

YEARS = range(1970, 9000)  # so that no time zone leads beyond the calendar

_DATED = "write it like '2026-12-24 18:00', or with an offset, '2026-12-24T18:00+01:00'"
_PAST = "write it like 21:30 (today), '2026-12-24 18:00', 2h (ago), today or yesterday"
_CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?", re.ASCII)
_DAYS = {"today": 0, "yesterday": 1}  # days ago

map_option = click.option(
    "--map",
    "map_file",
    default=DEFAULT_MAP,
    show_default=True,
    metavar="FILE",
    help="The VM map.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def dated(option: str, text: str, zone: tzinfo) -> datetime:
    """The date and time `text`, in `zone` if it has no offset, as UTC. Raises UsageError."""
    moment = _dated(text, zone)
    if moment is None:
        raise UsageError(f"{option} must be a date and a time, not {quote(text)}", _DATED)
    return moment


def past(option: str, text: str) -> datetime:
    """The moment `text` on the server's clock, as UTC; `2h` is two hours ago, `21:30` is today's.

    Raises UsageError.
    """
    if text in _DAYS:
        day = datetime.now().astimezone().date() - timedelta(days=_DAYS[text])
        return datetime.combine(day, time()).astimezone(UTC)
    if _CLOCK.fullmatch(text):
        hour, _, rest = text.partition(":")
        text = f"{datetime.now().astimezone():%Y-%m-%d} {hour:0>2}:{rest}"
    try:
        return datetime.now(UTC) - parse_duration(text)
    except ValueError:
        moment = _dated(text, None)
    if moment is None:
        raise UsageError(f"{option} must be a moment, not {quote(text)}", _PAST)
    return moment


def _dated(text: str, zone: tzinfo | None) -> datetime | None:
    """In UTC. Without a zone, `text` is on the server's clock. None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.year not in YEARS:
        return None
    if zone is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    # UTC, because Python compares two moments of one zone by their clock times alone.
    return moment.astimezone(UTC)


def no_such_vm(name: str, vms: Iterable[str]) -> tuple[str, str]:
    """Reason and hint. For admins only: a user is never told which VMs exist."""
    names = sorted(vms)
    hint = suggest(name, names, "the vms are") if names else "the map has no vm at all"
    return f"the map has no vm {quote(name)}", hint
