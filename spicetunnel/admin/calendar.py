"""`spicetunnel calendar`: who may use what, when, in one week."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime

import click

from spicetunnel.admin import people
from spicetunnel.admin.options import YEARS, json_option, map_option
from spicetunnel.admin.terminal import say, wrapped
from spicetunnel.admin.week import Day, Row, Span, week
from spicetunnel.admin.wording import comes_through, no_such_vm, place, who
from spicetunnel.common.errors import UsageError
from spicetunnel.policy.decide import Identity, grants_of
from spicetunnel.policy.problems import printable, quote
from spicetunnel.policy.vmmap import Grant, Vm, VmMap, load_map


@click.command()
@click.option("--vm", metavar="VM", help="This VM only.")
@click.option("--user", metavar="USER", help="What USER may use, by whichever grant.")
@click.option("--week", "day", metavar="DATE", help="The week of that day. Default: this week.")
@json_option
@map_option
def calendar(
    vm: str | None, user: str | None, day: str | None, as_json: bool, map_file: str
) -> int:
    """Draw the week: who may use what, when.

    Each VM's days and times are those of its own time zone.
    """
    vm_map = load_map(map_file)
    if vm is not None and vm not in vm_map.vms:
        raise UsageError(*no_such_vm(vm_map, vm))
    identity = people.identify(user, vm_map) if user is not None else None
    via = people.shared_accounts(identity, vm_map) if identity else ()
    vms = {vm: vm_map.vms[vm]} if vm is not None else vm_map.vms
    rows = list(_rows(vm_map, vms, identity, _parse_day(day)))
    if as_json:
        say(json.dumps({"via": list(via) or None, "rows": [_as_json(row) for row in rows]}))
        return 0
    say(_as_text(rows, user))
    if via:
        say(f"\n{wrapped(f'{user} has no account here: {comes_through(via)}')}")
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
    from spicetunnel.admin.drawing import drawn  # noqa: PLC0415 - its rich takes a while to load

    return drawn(rows, by_vm=user is None)


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
