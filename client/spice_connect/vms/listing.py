"""The VMs that the user may use: listed as a table or as JSON, or offered to pick one."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import NamedTuple

from spice_connect.config import Config
from spice_connect.notify import WaitWindow
from spice_connect.tunnel import localend
from spice_connect.tunnel.connection import Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.terminal import Terminal
from spice_connect.ui.windows import Windows
from spice_connect.vms.hosts import Hosts
from spice_connect.vms.row import Pick, Row

#: Lets the user pick one of these rows, and of those that follow; None: they left.
Ask = Callable[[Janitor, list[Row], Hosts], Pick | None]

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
        terminal.tell(*hosts.none())
    return os.EX_OK


class Choice(NamedTuple):
    """What was picked, and the connection on which to open it; None: it needs a login."""

    pick: Pick
    connection: Connection | None


@contextmanager
def choosing(
    config: Config, terminal: Terminal, ask: Ask, windows: Windows | None = None
) -> Iterator[tuple[Janitor, Choice | int]]:
    """Let the user pick a VM, with `ask`. An exit code if there is none or none was picked.

    With `windows`, what is waited for is shown in one. The connection lives as long as the
    janitor. Raises ClientError if the only host failed.
    """
    with Janitor(localend.parent_directory()) as janitor:
        with closing(Hosts(janitor, config, terminal, menu=True)) as hosts:
            picked = _choose(janitor, hosts, terminal, ask, windows)
            if isinstance(picked, int):
                choice: Choice | int = picked
            else:
                choice = Choice(picked, hosts.hand_over(picked.row.vm["host"]))
        # The other connections are closed now.
        yield janitor, choice


def _choose(
    janitor: Janitor, hosts: Hosts, terminal: Terminal, ask: Ask, windows: Windows | None
) -> Pick | int:
    window = WaitWindow(janitor, windows) if windows else None
    if window:
        window.show(f"asking {', '.join(hosts.asked)} for your VMs")
    rows = [row for some in hosts.first() for row in some]
    if window:
        window.end()
    if rows or hosts.pending():
        terminal.show("")
        return ask(janitor, rows, hosts) or os.EX_OK
    if failure := hosts.failure():
        return failure.exit_code
    (windows.message if windows else terminal.tell)(*hosts.none())
    return os.EX_OK


def by_menu(rows: list[Row], hosts: Hosts) -> Pick | None:
    from spice_connect.vms.pick import Menu  # noqa: PLC0415 - 100 ms

    return Menu(rows, hosts).run()


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
