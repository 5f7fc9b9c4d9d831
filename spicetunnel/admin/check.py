"""`spicetunnel check`: read a map as the broker does, and name every problem in it."""

import json
import os
from dataclasses import asdict, dataclass, field
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
    file = argument or map_file
    found = _examine(file, eyes.broker_user(broker_user))
    code = found.code
    if strict and found.warnings:
        code = code or os.EX_CONFIG
    if as_json:
        click.echo(json.dumps(_as_json(file, found, ok=code == os.EX_OK)))
        return code
    show_problems(found.problems)
    show_problems(found.warnings, kind="warning")
    if code == os.EX_OK:
        say(f"{printable(file)}: ok, {_summary(found)}")
    return code


@dataclass
class _Found:
    """`vm_map` is empty, and `code` says why, if there is no valid map."""

    vm_map: VmMap = field(default_factory=VmMap)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    code: int = os.EX_OK


def _examine(file: str, user: str) -> _Found:
    """Everything about the map and the files around it, as that user can read them."""
    found = _Found()
    try:
        _read_map(file, user, found)
    except MapError as error:
        found.problems, found.code = error.problems, error.exit_code
    bad_keys, doubtful_keys = eyes.bad_keys(os.path.join(os.path.dirname(file), "keys.d"))
    more = [*_bad_passwords(found.vm_map, user), *bad_keys]
    found.problems += more
    found.warnings += doubtful_keys
    if more:
        found.code = found.code or os.EX_CONFIG
    return found


def _read_map(file: str, user: str, found: _Found) -> None:
    """Raises MapError."""
    sources, unreadable = eyes.sources_seen(user, file)
    found.vm_map = parse_sources(sources, unreadable)
    texts = {name: data for data, name in sources}
    found.warnings += open_to_all(map_files(file), eyes.group_of(user))
    found.warnings += with_lines(doubts(found.vm_map, file, datetime.now(UTC)), texts)


def _bad_passwords(vm_map: VmMap, user: str) -> list[Problem]:
    """What is wrong with the passwords' files. Only the broker's user can tell."""
    if not user:
        return []
    files = [vm.password_file for vm in vm_map.vms.values() if vm.password_file]
    return eyes.unreadable_passwords(user, files)


def _as_json(file: str, found: _Found, *, ok: bool) -> dict[str, object]:
    return {
        "file": file,
        "ok": ok,
        "vms": len(found.vm_map.vms),
        "grants": _grants(found.vm_map),
        "problems": [asdict(each) for each in found.problems],
        "warnings": [asdict(each) for each in found.warnings],
    }


def _summary(found: _Found) -> str:
    parts = [count(len(found.vm_map.vms), "vm"), count(_grants(found.vm_map), "grant")]
    parts += [count(len(found.warnings), "warning")] if found.warnings else []
    return ", ".join(parts)


def _grants(vm_map: VmMap) -> int:
    return sum(len(vm.allow) for vm in vm_map.vms.values())
