"""The one place that decides who may use which VM."""

from dataclasses import dataclass

from spicetunnel.policy.problems import quote
from spicetunnel.policy.vmmap import Grant, Vm, VmMap


@dataclass(frozen=True)
class Identity:
    """A person, as the kernel and the account database know them."""

    uid: int
    user: str
    groups: frozenset[str]


@dataclass(frozen=True)
class Decision:
    allow: bool
    reason: str
    hint: str = ""
    grant: Grant | None = None  # the first that matched
    take_over: bool = False


def decide(vm_map: VmMap, identity: Identity, vm_name: str) -> Decision:
    """Allow only what a grant of this VM gives this person.

    A refusal is the same for a VM that is not theirs and for one that does not exist.
    """
    vm = vm_map.vms.get(vm_name)
    grants = [grant for grant in vm.allow if _matches(grant, identity)] if vm else []
    if not grants:
        reason = f"you may not use {quote(vm_name)}"
        return Decision(False, reason, "list the VMs you may use, or ask the admin")
    return Decision(
        True,
        reason=f"granted at {grants[0].source}",
        grant=grants[0],
        take_over=any(grant.take_over for grant in grants),
    )


def visible(vm_map: VmMap, identity: Identity) -> list[tuple[str, Vm]]:
    """The VMs this person may use, by name."""
    return [
        (name, vm)
        for name, vm in sorted(vm_map.vms.items())
        if decide(vm_map, identity, name).allow
    ]


def _matches(grant: Grant, identity: Identity) -> bool:
    # Never compare with None: an identity that lacks a name must not match a grant that does.
    if grant.user is not None:
        return grant.user == identity.user
    return grant.group in identity.groups
