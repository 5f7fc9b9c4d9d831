"""`spicetunnel sessions`: who is at which VM now."""

import json
import sys

import click

from spicetunnel.admin.broker import ask_rows, run_dir_option
from spicetunnel.admin.options import json_option
from spicetunnel.common.errors import UsageError


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="On a terminal: keep showing them, until Ctrl-C.")
@run_dir_option
def sessions(as_json: bool, watch: bool, run_dir: str) -> None:
    """Show who is at which VM, since when, and how much moves.

    Root and the admin group see everybody's sessions, anybody else their own.
    """
    from spicetunnel.admin import sessiontable  # noqa: PLC0415 - its rich takes a while to load

    if watch:
        _require_terminal(as_json)
        sessiontable.watch(run_dir)
        return
    rows = ask_rows(run_dir, "sessions")
    if as_json:
        click.echo(json.dumps({"sessions": rows}))
    else:
        sessiontable.show(rows)


def _require_terminal(as_json: bool) -> None:
    if as_json:
        raise UsageError("--watch draws for a person, --json does not", "leave out one of the two")
    if not sys.stdout.isatty():
        raise UsageError("--watch needs a terminal", "leave it out; --json is for programs")
