"""`spicetunnel check`: read a map as the broker does, and name every problem in it."""

import dataclasses
import json
import os
from datetime import UTC, datetime

import click

from spicetunnel.admin import eyes
from spicetunnel.admin.doubts import doubts, open_to_all
from spicetunnel.admin.figures import count
from spicetunnel.admin.options import json_option, map_option
from spicetunnel.admin.terminal import say, show_problems
from spicetunnel.policy.problems import Problem, printable, with_lines
from spicetunnel.policy.vmmap import MapError, VmMap, map_files, parse_sources


@click.command()
@click.argument("argument", metavar="[FILE]", required=False)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option(
    "--broker-user",
    metavar="USER",
    help=f"As root: what this user can read counts. Default: {eyes.BROKER_USER}, if there is one.",
)
@json_option
@map_option
def check(
    argument: str | None, strict: bool, broker_user: str | None, as_json: bool, map_file: str
) -> int:
    """Check the map FILE, with the code that the broker uses, and with its rights.

    Warns of accounts that this server does not know, of grants that are over, and of a map that
    everybody can read. Also checks the keys of shared accounts, in keys.d beside the map.
    """
    file, user = argument or map_file, eyes.broker_user(broker_user)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    vm_map = VmMap(vms={})
    code = os.EX_OK
    try:
        sources, unreadable = eyes.sources_seen(user, file)
        vm_map = parse_sources(sources, unreadable)
        texts = {name: data for data, name in sources}
        warnings = open_to_all(map_files(file), eyes.group_of(user))
        warnings += with_lines(doubts(vm_map, file, datetime.now(UTC)), texts)
    except MapError as error:
        problems, code = error.problems, error.exit_code
    more, doubtful = eyes.bad_keys(os.path.join(os.path.dirname(file), "keys.d"))
    warnings += doubtful
    if more := [*_bad_passwords(vm_map, user), *more]:
        problems, code = [*problems, *more], code or os.EX_CONFIG
    if strict and warnings:
        code = code or os.EX_CONFIG
    if as_json:
        _print_json(file, vm_map, problems, warnings, ok=code == os.EX_OK)
        return code
    show_problems(problems)
    show_problems(warnings, kind="warning")
    if code == os.EX_OK:
        say(f"{printable(file)}: ok, {_summary(vm_map, warnings)}")
    return code


def _bad_passwords(vm_map: VmMap, user: str) -> list[Problem]:
    """What is wrong with the passwords' files. Only the broker's user can tell."""
    if not user:
        return []
    files = [vm.password_file for vm in vm_map.vms.values() if vm.password_file]
    return eyes.unreadable_passwords(user, files)


def _print_json(
    file: str, vm_map: VmMap, problems: list[Problem], warnings: list[Problem], *, ok: bool
) -> None:
    answer = {
        "file": file,
        "ok": ok,
        "vms": len(vm_map.vms),
        "grants": _grants(vm_map),
        "problems": [dataclasses.asdict(each) for each in problems],
        "warnings": [dataclasses.asdict(each) for each in warnings],
    }
    click.echo(json.dumps(answer))


def _summary(vm_map: VmMap, warnings: list[Problem]) -> str:
    parts = [count(len(vm_map.vms), "vm"), count(_grants(vm_map), "grant")]
    parts += [count(len(warnings), "warning")] if warnings else []
    return ", ".join(parts)


def _grants(vm_map: VmMap) -> int:
    return sum(len(vm.allow) for vm in vm_map.vms.values())
