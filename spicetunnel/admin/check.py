"""`spicetunnel check`: read a map as the broker does, and name every problem in it."""

import dataclasses
import json
import os

import click

from spicetunnel.admin.figures import count
from spicetunnel.admin.options import json_option, map_option
from spicetunnel.admin.terminal import show_problems
from spicetunnel.policy.problems import Problem, printable
from spicetunnel.policy.vmmap import MapError, VmMap, load_map


@click.command()
@click.argument("argument", metavar="[FILE]", required=False)
@json_option
@map_option
def check(argument: str | None, as_json: bool, map_file: str) -> int:
    """Check the map FILE, with the code that the broker uses."""
    file = argument or map_file
    problems: list[Problem] = []
    vm_map = VmMap(vms={})
    code = os.EX_OK
    try:
        vm_map = load_map(file)
    except MapError as error:
        problems, code = error.problems, error.exit_code
    if as_json:
        _print_json(file, vm_map, problems)
    elif problems:
        show_problems(problems)
    else:
        click.echo(f"{printable(file)}: ok, {_summary(vm_map)}")
    return code


def _print_json(file: str, vm_map: VmMap, problems: list[Problem]) -> None:
    answer = {
        "file": file,
        "ok": not problems,
        "vms": len(vm_map.vms),
        "grants": _grants(vm_map),
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    click.echo(json.dumps(answer))


def _summary(vm_map: VmMap) -> str:
    return f"{count(len(vm_map.vms), 'vm')}, {count(_grants(vm_map), 'grant')}"


def _grants(vm_map: VmMap) -> int:
    return sum(len(vm.allow) for vm in vm_map.vms.values())
