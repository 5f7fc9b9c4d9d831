"""What an edit of the map changes in decisions: who may do what, before and after."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from spicetunnel.admin.grantwords import terms
from spicetunnel.policy.durations import written
from spicetunnel.policy.problems import printable
from spicetunnel.policy.vmmap import Grant, Vm, VmMap, Who

_Names = frozenset[str] | None  # None for all
_HowMuch = tuple[_Names, _Names, bool]


@dataclass(frozen=True)
class _Right:
    """One grant to one person. `how_much` is what matters when another grant matches too."""

    text: str
    how_much: _HowMuch


_Rights = dict[str, list[_Right]]  # by person, in the map's order


def changes(old: VmMap, new: VmMap) -> list[str]:
    """One line for each change: `+ anne: vm2 Wed,Thu`, `- boss: vm1`, `~ boss: vm1 Mon -> Tue`."""
    names = sorted({*old.vms, *new.vms})
    by_vm = (_of_vm(name, old, new) for name in names)
    top = chain(_of_delegates(old, new), _of_sessions(old, new))
    return [printable(line) for line in chain(top, *by_vm)]


def _of_delegates(old: VmMap, new: VmMap) -> Iterator[str]:
    for name in sorted({*old.delegates} ^ {*new.delegates}):
        sign = "+" if name in new.delegates else "-"
        yield f"{sign} {name}: speaks for others, as a delegate"


def _of_sessions(old: VmMap, new: VmMap) -> Iterator[str]:
    before, after = _session_rules(old), _session_rules(new)
    for key, value in after.items():
        if before[key] != value:
            yield f"~ {key} {before[key]} -> {value}"


def _session_rules(vm_map: VmMap) -> dict[str, str]:
    spans = sorted(set(vm_map.warn), reverse=True)
    limits = vm_map.limits.model_dump(by_alias=True)
    warn = ", ".join(map(written, spans)) or "nothing"
    return {"warn:": warn, **{f"limits: {key}": str(value) for key, value in limits.items()}}


def _of_vm(name: str, old_map: VmMap, new_map: VmMap) -> Iterator[str]:
    old, new = old_map.vms.get(name), new_map.vms.get(name)
    if old and new and old.socket != new.socket:
        yield f"~ {name}: socket {old.socket} -> {new.socket}"
    if old and new and old.seat != new.seat:
        yield f"~ {name}: seat {old.seat} -> {new.seat}"
    if old and new and old.password_file != new.password_file:
        files = " -> ".join(each.password_file or "none" for each in (old, new))
        yield f"~ {name}: password-file {files}"
    zones = _zones(old_map, old, new_map, new)
    before, after = _rights(old_map, old, zones[0]), _rights(new_map, new, zones[1])
    lines = list(_grouped(name, before, after))
    yield from lines
    if old and new and not lines and _ranking(old_map, old) != _ranking(new_map, new):
        yield f"~ {name}: the order of its grants (the first that matches says how much)"


def _zones(old_map: VmMap, old: Vm | None, new_map: VmMap, new: Vm | None) -> tuple[str, str]:
    """The two time zones, to be added to each right; empty if they are the same."""
    if not (old and new):
        return "", ""
    before, after = str(old_map.zone_of(old)), str(new_map.zone_of(new))
    return ("", "") if before == after else (f" ({before})", f" ({after})")


def _rights(vm_map: VmMap, vm: Vm | None, zone: str) -> _Rights:
    rights: _Rights = {}
    for grant in vm.allow if vm else ():
        right = _Right(terms(grant) + zone, _how_much(grant))
        for person in _people(vm_map, grant):
            theirs = rights.setdefault(person, [])
            if right not in theirs:
                theirs.append(right)
    return rights


def _people(vm_map: VmMap, grant: Grant) -> Iterator[str]:
    """Everyone whom the grant names. A set of people counts as its members."""
    whos: Iterable[Who] = [grant]
    if grant.people:
        whos = [who for name in grant.people for who in vm_map.people[name]]
    for who in whos:
        yield from who.user
        yield from (f"group {name}" for name in who.group)
        yield from (f"uid {number}" for number in who.uid)
        yield from (f"gid {number}" for number in who.gid)
        yield from ["everyone"] if who.everyone else []


def _grouped(vm: str, before: _Rights, after: _Rights) -> Iterator[str]:
    """People with the same change share a line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for person in sorted({*before, *after}):
        change = _change(before.get(person, []), after.get(person, []))
        groups.setdefault(change, []).append(person)
    for (sign, what), people in groups.items():
        if sign:
            yield f"{sign} {', '.join(people)}: {vm}{what}"


def _change(old: list[_Right], new: list[_Right]) -> tuple[str, str]:
    """The sign, and what follows the VM's name. Both are empty if nothing changes."""
    if old == new:
        return "", ""
    if not new:
        return "-", ""
    # If one grant gives more than another, their order counts, so all are shown.
    lost, gained = old, new
    if len({right.how_much for right in (*old, *new)}) == 1:
        lost = [right for right in old if right not in new]
        gained = [right for right in new if right not in old]
    sign = "~" if lost and gained else "+" if gained else "-" if lost else ""
    sides = ("; ".join(right.text for right in side) for side in (lost, gained) if side)
    return (sign, f" {' -> '.join(sides)}") if sign else ("", "")


def _ranking(vm_map: VmMap, vm: Vm) -> list[tuple[tuple[str, ...], str]]:
    """The order of the grants, by people and terms; empty if all give equally much."""
    if len({_how_much(grant) for grant in vm.allow}) < 2:
        return []
    ranks = ((tuple(sorted(_people(vm_map, grant))), terms(grant)) for grant in vm.allow)
    return list(dict.fromkeys(ranks))


def _how_much(grant: Grant) -> _HowMuch:
    return grant.allowed, grant.agent, grant.take_over
