"""The calendar on the terminal: a table of 79 columns for each time zone."""

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import groupby, zip_longest

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from spicetunnel.admin.terminal import WIDTH, wrapped
from spicetunnel.admin.week import Row
from spicetunnel.policy.problems import printable

_LABEL, _DAY = 23, 7  # columns, and a space behind each
_CONSOLE = Console(width=WIDTH, color_system=None)

_Marks = dict[str, str]  # by place, the mark that stands for it


def drawn(rows: list[Row], by_vm: bool) -> str:
    """`by_vm`: under each VM a row for each of its people; without, one row for each VM."""
    marks = _marks(rows)
    lines: list[str] = []
    for _, section in groupby(sorted(rows, key=_order), _order):
        group = list(section)
        days = group[0].days
        lines += [_bold(f"Week of {days[0].date}, {printable(str(days[0].zone))}"), ""]
        lines += _line("", [str(day) for day in days])
        lines += _by_vm(group, marks) if by_vm else _by_user(group, marks)
        lines += ["", *(day.clock_set for day in days if day.clock_set)]
    lines += [wrapped(f"only {place}", f"{mark} ") for place, mark in marks.items()]
    return "\n".join(lines).rstrip("\n")


def _order(row: Row) -> tuple[str, date]:
    return str(row.days[0].zone), row.days[0].date


def _marks(rows: list[Row]) -> _Marks:
    places = dict.fromkeys(row.place for row in rows if row.place)
    return {place: f"[{number}]" for number, place in enumerate(places, 1)}


def _by_vm(rows: Iterable[Row], marks: _Marks) -> Iterator[str]:
    for vm, group in groupby(rows, lambda row: row.vm):
        people = list(group)
        yield _bold(_cut(f"{vm}  {people[0].title}".rstrip()))
        for row in people:
            name = row.who.removeprefix("user ") or "nobody"
            yield from _line(f"  {name} {marks.get(row.place, '')}", _cells(row))


def _by_user(rows: Iterable[Row], marks: _Marks) -> Iterator[str]:
    for row in rows:
        yield from _line(f"{row.vm} {marks.get(row.place, '')}", _cells(row))


def _cells(row: Row) -> list[str]:
    return [day.cell(spans) for day, spans in row.spans]


def _line(label: str, cells: list[str]) -> Iterator[str]:
    """One row of the table: as many lines as its fullest cell needs."""
    columns = [_folded(label), *(cell.split("\n") for cell in cells)]
    for first, *others in zip_longest(*columns, fillvalue=""):
        padded = (f"{text:<{_DAY}}" for text in others)
        yield " ".join([set_cell_size(first, _LABEL), *padded]).rstrip()


def _folded(label: str) -> list[str]:
    if cell_len(label) <= _LABEL:  # nearly all, and rich takes its time
        return [label]
    return [line.plain for line in Text(label).wrap(_CONSOLE, _LABEL, overflow="fold")]


def _cut(text: str) -> str:
    return text if cell_len(text) <= WIDTH else set_cell_size(text, WIDTH - 3) + "..."


def _bold(text: str) -> str:
    return click.style(text, bold=True)
