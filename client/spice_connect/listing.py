"""The VMs a person may use: asked of the server, shown as a table or as JSON."""

import json
import sys
from typing import Any

from spice_connect import dial, talk, workdir
from spice_connect.config import Config
from spice_connect.janitor import Janitor
from spice_connect.link import Link, Said
from spice_connect.loop import Loop
from spice_connect.terminal import Terminal, clean

HEADER = ("VM", "TITLE", "STATE")


def show_vms(config: Config, terminal: Terminal, *, as_json: bool) -> None:
    with Janitor(workdir.base()) as janitor:
        link = dial.to_list(janitor, config, terminal)
        vms = _ask(janitor, link, terminal)
    if as_json:
        terminal.result(json.dumps({"event": "vms", "vms": vms}))
    elif not vms:
        terminal.tell(f"no VM on {config.place} is yours", "its admin grants them")
    else:
        _table([_row(vm) for vm in vms], terminal)


def _ask(janitor: Janitor, link: Link, terminal: Terminal) -> list[dict[str, Any]]:
    loop = Loop(janitor)
    answers: list[talk.Vms] = []

    def on_event(event: Said) -> None:
        if isinstance(event, talk.Vms):
            answers.append(event)
        elif isinstance(event, talk.Notice):
            terminal.tell(event.reason, event.hint)

    link.watch(loop, on_event, loop.stop)
    loop.run()
    if not answers or link.status() != 0:
        raise link.loss()
    return [vm for answer in answers for vm in answer.vms]


def _row(vm: dict[str, Any]) -> tuple[str, ...]:
    return clean(vm["name"]), clean(vm["title"]), clean(_state(vm))


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


def _table(rows: list[tuple[str, ...]], terminal: Terminal) -> None:
    if sys.stdout.isatty():
        _rich_table(rows)
        return
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    for row in (HEADER, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminal.result("  ".join(cells).rstrip())


def _rich_table(rows: list[tuple[str, ...]]) -> None:
    # Only here: the import costs as much as all the rest of our start.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in HEADER:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, else [brackets] would be markup
    Console().print(table)
