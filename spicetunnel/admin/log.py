"""`spicetunnel log`: who was at which VM, from when until when; who was refused, and why."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

import click

from spicetunnel.admin import auditlog
from spicetunnel.admin.auditlog import Entries, Entry
from spicetunnel.admin.figures import count, size
from spicetunnel.admin.history import Event, History, Item, Question, Visit
from spicetunnel.admin.options import past
from spicetunnel.admin.terminal import say
from spicetunnel.common.errors import UsageError
from spicetunnel.policy.problems import printable

_MOMENT = "Such as 21:30 (today), '2026-12-24 18:00', 2h (ago), today or yesterday."


def _clock() -> str:
    """The clock that all times are on: `CET (UTC+0100)`."""
    now = datetime.now().astimezone()
    return f"{now:%Z} (UTC{now:%z})"


@click.command(epilog=f"Times are on this server's clock, {_clock()}.")
@click.option("--user", metavar="USER", help="Only USER.")
@click.option("--vm", metavar="VM", help="Only this VM.")
@click.option("--since", metavar="MOMENT", help=f"From this moment on. {_MOMENT}")
@click.option("--until", metavar="MOMENT", help="Up to this moment.")
@click.option("--at", metavar="MOMENT", help="Who was there at this moment.")
@click.option("--all", "everything", is_flag=True, help="Also the broker's own starts and faults.")
@click.option("--file", metavar="FILE", help="Read FILE instead of the journal; - is stdin.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object a line.")
def log(  # noqa: PLR0913, PLR0917 - each is one of the command line's
    user: str | None,
    vm: str | None,
    since: str | None,
    until: str | None,
    at: str | None,
    everything: bool,
    file: str | None,
    in_json: bool,
) -> None:
    """Show who was at which VM, from when until when, and who was refused.

    Ordered by the end of each visit; open sessions come last.
    """
    if at and (since or until):
        raise UsageError(
            "--at is one moment, --since and --until are a span", "use one or the other"
        )
    question = Question(
        user,
        vm,
        past("--since", since) if since else None,
        past("--until", until) if until else None,
        past("--at", at) if at else None,
        everything,
    )
    with _entries(file) as entries:
        _answer(question, entries, in_json)


def _entries(file: str | None) -> AbstractContextManager[Entries]:
    return auditlog.from_file(file) if file else auditlog.from_journal()


def _answer(question: Question, entries: Entries, in_json: bool) -> None:
    items = filter(question.is_about, History().of(entries))
    found = sum(_said(item, in_json) for item in items)
    if entries.foreign:
        what = count(entries.foreign, "line")
        say(f"spicetunnel: passed over {what} that the broker did not write", err=True)
    if in_json:
        return
    if found:
        say(f"spicetunnel: times are on this server's clock, {_clock()}", err=True)
    elif entries.own or entries.is_file:
        say("spicetunnel: no matching entries", err=True)


def _said(item: Item, in_json: bool) -> int:
    say(json.dumps(_as_json(item)) if in_json else _as_text(item))
    return 1


def _as_text(item: Item) -> str:
    """One line, the longest field last."""
    if isinstance(item, Visit):
        told = printable(item.reason) if item.end else click.style("still there", fg="green")
        return f"{_times(item)} {_who(item)} {_bytes(item):<9} {told}"
    entry = item.entry
    when = f"{_second(item.begin)}         "
    words = printable(_WORDS.get(entry.event, _plain)(entry))
    if entry.word("decision") == "deny":
        words = click.style(words, fg="red")
    return f"{when} {_who(item, entry.word('client'))} {words}" if item.vm else f"{when} {words}"


def _as_json(item: Item) -> dict[str, object]:
    """A visit as one object; any other entry as the broker wrote it."""
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
    """`2026-12-24 17:02:10-17:45:30`"""
    if visit.end is None:
        return f"{_second(visit.begin)}-        "
    end = visit.end.astimezone()
    same_day = visit.begin.astimezone().date() == end.date()
    return (
        f"{_second(visit.begin)}-{end:%H:%M:%S}"
        if same_day
        else f"{_second(visit.begin)}-{_second(end)}"
    )


def _who(item: Item, client: str = "") -> str:
    client = item.client if isinstance(item, Visit) else client
    user, vm, client = (printable(word) or "-" for word in (item.user, item.vm, client))
    return f"{user:<8} {vm:<8} {client:<13}"


def _bytes(visit: Visit) -> str:
    """Bytes up and down, as the gate counted them."""
    if visit.up is None or visit.down is None:
        return "-"
    return f"{size(visit.up)}/{size(visit.down)}"


def _second(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


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
        return _second(datetime.fromisoformat(entry.word("until")))
    except (ValueError, OverflowError):
        return entry.word("until")


def _map(entry: Entry) -> str:
    if entry.word("decision") == "allow":
        return f"map in force: {entry.number('vms')} vms, {entry.number('grants')} grants"
    problems = entry.fields.get("problems")
    first = problems[0] if isinstance(problems, list) and problems else entry.word("reason")
    return f"map refused: {first}"


def _plain(entry: Entry) -> str:
    """The broker's own events: starts, stops, faults."""
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
