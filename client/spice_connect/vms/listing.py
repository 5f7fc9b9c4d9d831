"""The VMs a person may use: asked of the servers, shown as a table or as JSON."""

import json
import os
import sys

from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel import workdir
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.terminal import Terminal
from spice_connect.vms import vmcache
from spice_connect.vms.asking import Question, ask
from spice_connect.vms.rows import Row, rows_of

HEADER = ("VM", "TITLE", "STATE")
HEADER_WITH_HOST = ("VM", "HOST", "TITLE", "STATE")


def show_vms(config: Config, terminal: Terminal, *, as_json: bool) -> int:
    """The exit code: a host that failed counts only if all did."""
    hosts, asked = config.every_host(), list[Question]()
    with Janitor(workdir.base()) as janitor:
        for over in ask(janitor, config, terminal):
            asked += over
            tell_failures(over, terminal, one_of_many=len(hosts) > 1)
            if (new := rows_of(over)) and not as_json:
                _table(new, terminal, with_hosts=len(hosts) > 1)
    failures = [each.failure for each in asked if each.failure]
    if len(failures) == len(hosts):
        return failures[0].exit_code
    remember(asked)
    rows = rows_of(asked)
    if as_json:
        terminal.result(json.dumps({"event": "vms", "vms": [row.vm for row in rows]}))
    elif not rows:
        tell_none(asked, terminal)
    return os.EX_OK


def remember(asked: list[Question]) -> None:
    """The names, for completion."""
    for each in asked:
        if not each.failure:
            vmcache.remember(each.host, (vm["name"] for vm in each.vms))


def tell_failures(over: list[Question], terminal: Terminal, *, one_of_many: bool) -> None:
    """Raises that of the only one."""
    for each in over:
        if each.failure and one_of_many:
            terminal.tell(_with_host(each.host, each.failure))
        elif each.failure:
            raise each.failure


def tell_none(asked: list[Question], terminal: Terminal) -> None:
    answered = [each.place for each in asked if not each.failure]
    terminal.tell(f"no VM on {' or '.join(answered)} is yours", "its admin grants them")


def _with_host(host: str, failure: ClientError) -> str:
    return failure.reason if host in failure.reason else f"{host}: {failure.reason}"


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
    # Only here: the import costs as much as all the rest of our start.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))  # as Text, else [brackets] would be markup
    Console().print(table)
