"""What is valid in a map and probably not meant: the warnings of `check` and `edit`."""

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from functools import cache
from itertools import chain

from spicetunnel.common.names import is_person_name
from spicetunnel.policy import accounts
from spicetunnel.policy.problems import Problem, printable, quote
from spicetunnel.policy.vmmap import Grant, Vm, VmMap, Who


def doubts(vm_map: VmMap, file: str, now: datetime) -> list[Problem]:
    """Every warning about the map, by place; `file` is its main one.

    Asks the account database about each name once.
    """
    nobodys = chain(_unknown_delegates(vm_map, file), _unknown_people(vm_map))
    return sorted({*nobodys, *_over(vm_map, now)})


def open_to_all(files: Iterable[str], group: str) -> list[Problem]:
    """A warning of each file that everybody can read: it names people and VMs to them.

    `group` is the broker's.
    """
    message = "everybody on this server can read it, and so who may use what"
    cure = f"chgrp {shlex.quote(group)} {{0}}; chmod 640 {{0}}"
    return [
        Problem(printable(each), 0, 0, message, cure.format(printable(shlex.quote(each))))
        for each in files
        if _mode(each) & stat.S_IROTH
    ]


def _mode(file: str) -> int:
    """0 if it cannot be told."""
    try:
        return os.stat(file).st_mode
    except OSError:
        return 0


def _unknown_delegates(vm_map: VmMap, file: str) -> Iterator[Problem]:
    for name in vm_map.delegates:
        # As for the broker: a number may be a name, or a uid.
        if not (accounts.has_user(name) or (name.isdecimal() and accounts.has_user(int(name)))):
            message, hint = _no_user(name)
            yield Problem(printable(file), 0, 0, f"'delegates': {message}", hint)


def _unknown_people(vm_map: VmMap) -> Iterator[Problem]:
    has_user, has_group = cache(accounts.has_user), cache(accounts.has_group)
    for who in _whos(vm_map):
        for words in _unknown(who, bool(vm_map.delegates), has_user, has_group):
            file, line = who.place
            yield Problem(file, line, 0, *words)


def _whos(vm_map: VmMap) -> Iterable[Who]:
    grants = (vm.allow for vm in vm_map.vms.values())
    return chain.from_iterable(chain(grants, vm_map.people.values()))


def _unknown(
    who: Who,
    shared: bool,
    has_user: Callable[[int | str], bool],
    has_group: Callable[[int | str], bool],
) -> Iterator[tuple[str, str]]:
    """`shared`: there are shared accounts, whose people need no account of their own."""
    for name in who.user:
        if not (shared and is_person_name(name)) and not has_user(name):
            yield _no_user(name)
    for uid in who.uid:
        if not has_user(uid):
            yield f"no user has the uid {uid} on this server", _asks(f"passwd {uid}")
    for gid in who.gid:
        if not has_group(gid):
            yield f"no group has the gid {gid} on this server", _asks(f"group {gid}")
    for name in who.group:
        if not has_group(name):
            yield f"no group {quote(name)} on this server", _asks(f"group {shlex.quote(name)}")


def _no_user(name: str) -> tuple[str, str]:
    return f"no user {quote(name)} on this server", _asks(f"passwd {shlex.quote(name)}")


def _asks(words: str) -> str:
    return f"correct the name, or create it; the account database is asked by: getent {words}"


def _over(vm_map: VmMap, now: datetime) -> Iterator[Problem]:
    """Grants that hold neither now nor ever again."""
    for vm in vm_map.vms.values():
        for grant in vm.allow:
            if words := _why_over(vm_map, vm, grant, now):
                yield Problem(*grant.place, 0, *words)


def _why_over(vm_map: VmMap, vm: Vm, grant: Grant, now: datetime) -> tuple[str, str] | None:
    if grant.ends == date.max and not grant.except_:
        return None  # nearly every grant: it holds again next week
    zone = vm_map.zone_of(vm)
    if grant.schedule(zone).next_opening(now) is not None:
        return None
    if grant.ends < now.astimezone(zone).date():
        return f"this grant ended on {grant.ends}", "remove it, or move 'ends'"
    return "this grant never holds: its dates leave no window", "compare 'when' with the dates"
