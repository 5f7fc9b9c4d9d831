"""`spicetunnel sessions`: who is at which VM now, as a table or as JSON."""

import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spicetunnel.admin.broker import BrokerDownError, ask_rows, run_dir_option
from spicetunnel.admin.figures import clock, count, size
from spicetunnel.admin.options import json_option
from spicetunnel.common.errors import UsageError
from spicetunnel.common.protocol import Message, number, text
from spicetunnel.policy.problems import printable

INTERVAL = 2.0  # seconds; the gates report their counts that often

_WORDS = ("SESSION", "USER", "VM", "FROM", "SINCE", "UNTIL")
_NUMBERS = ("CH", "UP", "DOWN", "UP/S", "DOWN/S")
_ENDLESS = 10_000  # columns, if there is no terminal


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="On a terminal: refresh until Ctrl-C.")
@run_dir_option
def sessions(as_json: bool, watch: bool, run_dir: str) -> None:
    """Show who is at which VM, since when, and how many bytes move.

    Root and the admin group see everybody's sessions; others see their own.
    """
    if watch:
        _require_terminal(as_json)
        _watch(run_dir)
        return
    rows = ask_rows(run_dir, "sessions")
    if as_json:
        click.echo(json.dumps({"sessions": rows}))
    else:
        _console().print(_drawn(rows))


def _require_terminal(as_json: bool) -> None:
    if as_json:
        raise UsageError("--watch draws for a person, --json does not", "leave out one of the two")
    if not sys.stdout.isatty():
        raise UsageError("--watch needs a terminal", "leave it out; --json is for programs")


def _watch(run_dir: str) -> None:
    """Show the sessions until Ctrl-C, across restarts of the broker too."""
    try:
        with Live(console=_console(), screen=True, auto_refresh=False) as live:
            while True:
                live.update(_frame(run_dir), refresh=True)
                time.sleep(INTERVAL)
    except KeyboardInterrupt:
        pass  # the way to leave


def _console() -> Console:
    return Console(
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        width=None if sys.stdout.isatty() else _ENDLESS,
        highlight=False,
    )


def _frame(run_dir: str) -> RenderableType:
    try:
        return _drawn(ask_rows(run_dir, "sessions"))
    except BrokerDownError as error:
        return Text(f"{error.reason}; looking again")


def _drawn(rows: list[Message]) -> RenderableType:
    if not rows:
        return Text("no sessions")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in _WORDS:
        table.add_column(name, overflow="fold")
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for row in sorted(rows, key=lambda each: text(each, "since")):
        table.add_row(*(Text(cell) for cell in _cells(row, now)))
    return Group(table, Text(count(len(rows), "session")))


def _cells(row: Message, now: datetime) -> Iterable[str]:
    words = (printable(text(row, key)) for key in ("id", "user", "vm", "from"))
    moments = (_clock(text(row, key), now) for key in ("since", "until"))
    sizes = (size(number(row, key)) for key in ("bytes_up", "bytes_down", "rate_up", "rate_down"))
    return (*words, *moments, str(number(row, "channels")), *sizes)


def _clock(moment: str, now: datetime) -> str:
    try:
        return clock(datetime.fromisoformat(moment), now)
    except ValueError:
        return printable(moment)
