"""`spicetunnel log`: who was where, from when until when; who was refused, and why."""

import json
from contextlib import AbstractContextManager

import click

from spicetunnel.admin import auditlog
from spicetunnel.admin.auditlog import Entries
from spicetunnel.admin.figures import count
from spicetunnel.admin.history import History, Item, Question
from spicetunnel.admin.logwords import as_json, as_text
from spicetunnel.admin.moments import past
from spicetunnel.admin.terminal import say
from spicetunnel.common.errors import UsageError

_MOMENT = "Such as '2026-12-24 18:00', 2h (ago), today or yesterday."


@click.command()
@click.option("--user", metavar="USER", help="Of USER only.")
@click.option("--vm", metavar="VM", help="At VM only.")
@click.option("--since", metavar="MOMENT", help=f"From then on. {_MOMENT}")
@click.option("--until", metavar="MOMENT", help="Up to then.")
@click.option("--at", metavar="MOMENT", help="Who was there at that moment.")
@click.option("--all", "everything", is_flag=True, help="Also the broker's starts and faults.")
@click.option("--file", metavar="FILE", help="Not the journal, but FILE; - is stdin.")
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
    """Say who was where, from when until when, and who was refused.

    In the order in which it ended; who is still there comes last.
    """
    if at and (since or until):
        raise UsageError("--at is one moment, --since and --until are a span", "ask for either")
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
    if not found and not in_json:
        say("spicetunnel: the log has nothing of that", err=True)


def _said(item: Item, in_json: bool) -> int:
    say(json.dumps(as_json(item)) if in_json else as_text(item))
    return 1
