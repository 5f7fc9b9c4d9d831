"""The VMs a person may use: asked of the servers, shown as a table or as JSON."""

import json
import os
import sys
from typing import Any

from spice_connect import vmcache, workdir
from spice_connect.asking import Question, ask
from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.janitor import Janitor
from spice_connect.terminal import Terminal, clean

Vms = list[dict[str, Any]]

HEADER = ("VM", "TITLE", "STATE")
HEADER_WITH_HOST = ("VM", "HOST", "TITLE", "STATE")


def show_vms(config: Config, terminal: Terminal, *, as_json: bool) -> int:
    """The exit code: a host that failed counts only if all did."""
    hosts, asked, vms = config.every_host(), list[Question](), Vms()
    header = HEADER if len(hosts) == 1 else HEADER_WITH_HOST
    with Janitor(workdir.base()) as janitor:
        for over in ask(janitor, config, terminal):
            asked += over
            _tell_failures(over, terminal, one_of_many=len(hosts) > 1)
            new = [vm | {"host": each.host} for each in over for vm in each.vms if not each.failure]
            vms += new
            if new and not as_json:
                _table(header, [_row(vm, header) for vm in new], terminal)
    failures = [each.failure for each in asked if each.failure]
    if len(failures) == len(hosts):
        return failures[0].exit_code
    for each in asked:
        if not each.failure:
            vmcache.remember(each.host, (vm["name"] for vm in each.vms))
    if as_json:
        terminal.result(json.dumps({"event": "vms", "vms": vms}))
    elif not vms:
        answered = [each.place for each in asked if not each.failure]
        terminal.tell(f"no VM on {' or '.join(answered)} is yours", "its admin grants them")
    return os.EX_OK


def _tell_failures(over: list[Question], terminal: Terminal, *, one_of_many: bool) -> None:
    for each in over:
        if each.failure and one_of_many:
            terminal.tell(_with_host(each.host, each.failure))
        elif each.failure:
            raise each.failure


def _with_host(host: str, failure: ClientError) -> str:
    return failure.reason if host in failure.reason else f"{host}: {failure.reason}"


def _row(vm: dict[str, Any], header: tuple[str, ...]) -> tuple[str, ...]:
    cells = {"VM": vm["name"], "HOST": vm["host"], "TITLE": vm["title"], "STATE": _state(vm)}
    return tuple(clean(cells[name]) for name in header)


def _state(vm: dict[str, Any]) -> str:
    state, who = str(vm["state"]), vm["busy_by"]
    if state == "closed" and vm["next"]:
        return f"opens {_short(vm['next'])}"
    if who and state != "shared":
        return f"busy: {who}"
    until = f" until {_short(vm['until'])}" if vm["until"] else ""
    # Shared: there is room, so until when one may come counts as with a free one.
    return f"free{until}, shared with {who}" if who else f"{state}{until}"


def _short(moment: str) -> str:
    """`2026-11-23T17:00:00+01:00`, to the minute; the server's clock is meant."""
    return moment[:16].replace("T", " ")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], terminal: Terminal) -> None:
    if sys.stdout.isatty():
        _rich_table(header, rows)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminal.result("  ".join(cells).rstrip())


def _rich_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    # Only here: the import costs as much as all the rest of our start.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, else [brackets] would be markup
    Console().print(table)
