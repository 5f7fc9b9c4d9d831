"""What happened, in one line each: for people on the server's clock, or as JSON."""

from collections.abc import Callable
from datetime import datetime

import click

from spicetunnel.admin.auditlog import Entry
from spicetunnel.admin.figures import size
from spicetunnel.admin.history import Event, Item, Visit
from spicetunnel.policy.problems import printable


def as_text(item: Item) -> str:
    """The longest last: nearly all fit into 80 columns."""
    if isinstance(item, Visit):
        told = printable(item.reason) if item.end else click.style("still there", fg="green")
        return f"{_times(item)} {_who(item)} {_bytes(item):<9} {told}"
    entry = item.entry
    when = f"{_minute(item.begin)}      "
    words = printable(_WORDS.get(entry.event, _plain)(entry))
    if entry.word("decision") == "deny":
        words = click.style(words, fg="red")
    return f"{when} {_who(item, entry.word('client'))} {words}" if item.vm else f"{when} {words}"


def as_json(item: Item) -> dict[str, object]:
    """A visit as one object; anything else as the broker wrote it."""
    if isinstance(item, Event):
        return item.entry.fields
    return {
        "event": "session",
        "session": item.session,
        "user": item.user,
        "vm": item.vm,
        "client": item.client,
        "via": item.via,
        "since": _iso(item.begin),
        "until": _iso(item.end) if item.end else None,
        "bytes_up": item.up,
        "bytes_down": item.down,
        "reason": item.reason,
    }


def _times(visit: Visit) -> str:
    """`2026-12-24 17:02-17:45`"""
    if visit.end is None:
        return f"{_minute(visit.begin)}-     "
    end = visit.end.astimezone()
    same_day = visit.begin.astimezone().date() == end.date()
    return (
        f"{_minute(visit.begin)}-{end:%H:%M}"
        if same_day
        else f"{_minute(visit.begin)}-{_minute(end)}"
    )


def _who(item: Item, client: str = "") -> str:
    client = item.client if isinstance(item, Visit) else client
    user, vm, client = (printable(word) or "-" for word in (item.user, item.vm, client))
    return f"{user:<8} {vm:<8} {client:<13}"


def _bytes(visit: Visit) -> str:
    """Up and down, by the gate's word."""
    if visit.up is None or visit.down is None:
        return "-"
    return f"{size(visit.up)}/{size(visit.down)}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _iso(moment: datetime) -> str:
    return moment.astimezone().isoformat(timespec="milliseconds")


def _refused(entry: Entry) -> str:
    return f"refused: {entry.word('reason')}"


def _kicked(entry: Entry) -> str:
    return f"ended by {_by(entry)}"


def _granted(entry: Entry) -> str:
    return f"granted until {_until(entry)} by {_by(entry)}"


def _revoked(entry: Entry) -> str:
    return f"grant taken back by {_by(entry)}"


def _by(entry: Entry) -> str:
    reason = entry.word("reason")
    return entry.word("by") + (f": {reason}" if reason else "")


def _until(entry: Entry) -> str:
    try:
        return _minute(datetime.fromisoformat(entry.word("until")))
    except (ValueError, OverflowError):
        return entry.word("until")


def _map(entry: Entry) -> str:
    if entry.word("decision") == "allow":
        return f"map in force: {entry.number('vms')} vms, {entry.number('grants')} grants"
    problems = entry.fields.get("problems")
    first = problems[0] if isinstance(problems, list) and problems else entry.word("reason")
    return f"map refused: {first}"


def _plain(entry: Entry) -> str:
    """What the broker says of itself."""
    more = (entry.word(key) for key in ("version", "command", "reason"))
    return " ".join(filter(None, (entry.event, *more)))


_WORDS: dict[str, Callable[[Entry], str]] = {
    "open": _refused,
    "refused": _refused,
    "kick": _kicked,
    "grant": _granted,
    "revoke": _revoked,
    "map": _map,
}
