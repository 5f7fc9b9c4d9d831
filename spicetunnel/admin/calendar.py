"""`spicetunnel calendar`: who may use which VM when, in one week, as a table of 79 columns."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import groupby, zip_longest

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from spicetunnel.admin import people
from spicetunnel.admin.broker import run_dir_option
from spicetunnel.admin.grantwords import place, who
from spicetunnel.admin.options import YEARS, json_option, map_option, no_such_vm
from spicetunnel.admin.rules import load_rules
from spicetunnel.admin.terminal import WIDTH, say, wrapped
from spicetunnel.admin.week import Day, Row, Span, week
from spicetunnel.common.errors import UsageError
from spicetunnel.policy.decide import Identity, grants_of
from spicetunnel.policy.problems import printable, quote
from spicetunnel.policy.vmmap import Grant, Vm, VmMap

_LABEL, _DAY = 23, 7  # columns, each followed by a space
_CONSOLE = Console(width=WIDTH, color_system=None)

_Marks = dict[str, str]  # from a place to the mark that stands for it


@click.command()
@click.option("--vm", metavar="VM", help="Only this VM.")
@click.option("--user", metavar="USER", help="Only what USER may use, by any grant.")
@click.option("--week", "day", metavar="DATE", help="The week of that day. Default: this week.")
@json_option
@map_option
@run_dir_option
def calendar(  # noqa: PLR0913, PLR0917 - each is one of the command line's
    vm: str | None, user: str | None, day: str | None, as_json: bool, map_file: str, run_dir: str
) -> int:
    """Draw the week: who may use what, when.

    Days and times are in each VM's own time zone. Temporary grants are not shown. Members of the
    admin group, who may not read the map, get it from the running broker.
    """
    vm_map = load_rules(map_file, run_dir)
    if vm is not None and vm not in vm_map.vms:
        raise UsageError(*no_such_vm(vm, vm_map.vms))
    identity = people.identify(user, vm_map) if user is not None else None
    via = people.shared_accounts(identity, vm_map) if identity else ()
    vms = {vm: vm_map.vms[vm]} if vm is not None else vm_map.vms
    rows = list(_rows(vm_map, vms, identity, _parse_day(day)))
    if as_json:
        say(json.dumps({"via": list(via) or None, "rows": [_as_json(row) for row in rows]}))
        return 0
    say(_as_text(rows, user))
    if via:
        say(f"\n{wrapped(f'{user} has no account here: {people.comes_through(via)}')}")
    return 0


def _parse_day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.year not in YEARS:
        raise UsageError(f"--week must be a date, not {quote(text)}", "write it like 2026-12-24")
    return day


def _rows(
    vm_map: VmMap, vms: dict[str, Vm], identity: Identity | None, day: date | None
) -> Iterator[Row]:
    for name, vm in sorted(vms.items()):
        zone = vm_map.zone_of(vm)
        days = week(day or datetime.now(UTC).astimezone(zone).date(), zone)
        grants = grants_of(vm_map, identity, vm) if identity else vm.allow
        rows: dict[tuple[str, str], Row] = {}
        for grant in grants:
            key = (_people(grant, identity), place(grant))
            row = rows.setdefault(key, Row(name, vm.title, *key, days))
            row.schedules.append(grant.schedule(zone))
        nobody = [] if rows or identity else [Row(name, vm.title, "", "", days)]
        yield from [*rows.values(), *nobody]


def _people(grant: Grant, identity: Identity | None) -> str:
    return printable(identity.user if identity else who(grant))


def _as_text(rows: list[Row], user: str | None) -> str:
    if not rows:
        return "the map has no vms" if user is None else f"{printable(user)} may use no vm"
    return _drawn(rows, by_vm=user is None)


def _as_json(row: Row) -> dict[str, object]:
    return {
        "vm": row.vm,
        "who": row.who or None,
        "place": row.place or None,
        "zone": row.zone,
        "days": [{"date": str(day.date), "open": _open(day, spans)} for day, spans in row.spans],
    }


def _open(day: Day, spans: Iterable[Span]) -> list[dict[str, str]]:
    return [
        {
            "start": start.astimezone(day.zone).isoformat(),
            "end": end.astimezone(day.zone).isoformat(),
        }
        for start, end in spans
    ]


def _drawn(rows: list[Row], by_vm: bool) -> str:
    """With `by_vm`, each VM has a row for each of its people; without, each VM is one row."""
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
    if cell_len(label) <= _LABEL:  # nearly always; rich is slow
        return [label]
    return [line.plain for line in Text(label).wrap(_CONSOLE, _LABEL, overflow="fold")]


def _cut(text: str) -> str:
    return text if cell_len(text) <= WIDTH else set_cell_size(text, WIDTH - 3) + "..."


def _bold(text: str) -> str:
    return click.style(text, bold=True)
