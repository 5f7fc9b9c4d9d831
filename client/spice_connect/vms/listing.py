"""The VMs that the user may use: listed as a table or as JSON, or offered to pick one."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain

from spice_connect.config import Config
from spice_connect.tunnel import localend
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.terminal import Terminal
from spice_connect.vms.hosts import Hosts, Row

HEADER = ("VM", "TITLE", "STATE")
HEADER_WITH_HOST = ("VM", "HOST", "TITLE", "STATE")


def show_vms(config: Config, terminal: Terminal, *, as_json: bool) -> int:
    """Print the list; return the exit code. Failed hosts count only if all failed.

    Raises ClientError if the only host failed.
    """
    shown = list[Row]()
    with (
        Janitor(localend.parent_directory()) as janitor,
        closing(Hosts(janitor, config, terminal)) as hosts,
    ):
        for rows in chain(hosts.first(), hosts.rest()):
            shown += rows
            if rows and not as_json:
                _table(rows, terminal, with_hosts=hosts.are_several)
    if failure := hosts.failure():
        return failure.exit_code
    if as_json:
        terminal.result(json.dumps({"event": "vms", "vms": [row.vm for row in shown]}))
    elif not shown:
        hosts.tell_none()
    return os.EX_OK


def choose(config: Config, terminal: Terminal) -> Row | int:
    """Let the user pick a VM. Returns an exit code if there is none or none was picked.

    Raises ClientError if the only host failed.
    """
    with (
        Janitor(localend.parent_directory()) as janitor,
        closing(Hosts(janitor, config, terminal)) as hosts,
    ):
        rows = [row for some in hosts.first() for row in some]
        if rows or hosts.pending():
            terminal.show("")
            return _pick(rows, hosts) or os.EX_OK
        if failure := hosts.failure():
            return failure.exit_code
        hosts.tell_none()
        return os.EX_OK


@contextmanager
def _asked(config: Config, terminal: Terminal) -> Iterator[Hosts]:
    directory = localend.parent_directory()
    with Janitor(directory) as janitor, closing(Hosts(janitor, config, terminal)) as hosts:
        yield hosts


def _pick(rows: list[Row], hosts: Hosts) -> Row | None:
    from spice_connect.vms.pick import Pick  # noqa: PLC0415 - 100 ms

    return Pick(rows, hosts).run()


def _table(rows: list[Row], terminal: Terminal, *, with_hosts: bool) -> None:
    header = HEADER_WITH_HOST if with_hosts else HEADER
    lines = [(row.name, *([row.host] if with_hosts else []), row.title, row.state) for row in rows]
    terminal.show("")
    if sys.stdout.isatty():
        _rich_table(header, lines)
        return
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, *lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        terminal.result("  ".join(cells).rstrip())


def _rich_table(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    # Imported here: it takes as long as all other imports together.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))  # as Text, else [brackets] would be markup
    Console().print(table)
