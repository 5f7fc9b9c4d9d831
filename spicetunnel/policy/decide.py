"""The one place that decides who may use which VM, when, from where, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from zoneinfo import ZoneInfo

from spicetunnel.policy.models import Grant, Vm, VmMap
from spicetunnel.policy.moments import Moment, dated
from spicetunnel.policy.problems import quote
from spicetunnel.policy.schedule import next_change

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Identity:
    """A person, as the kernel and the account database know them."""

    uid: int
    user: str
    groups: frozenset[str]
    gids: frozenset[int] = frozenset()  # of all their groups, those without a name too


@dataclass(frozen=True)
class Facts:
    """The time, and what is known about where the person is.

    `now` has a time zone. `address` is None if it is not known or not to be trusted; `doubt` says
    why.
    """

    now: datetime
    at_console: bool = False
    address: Address | None = None
    doubt: str = "the client's address is not known"


@dataclass(frozen=True)
class Decision:
    """Whether a person may use a VM, and why.

    `until`: when the right ends. `next`: when a refused right begins. Both are None if that never
    happens or is unknown. `changes`: when a running session must be decided again. `why`: a
    refusal's reason in short, for a person who was allowed until now. `allowed` and `agent`: how
    much of the VM, see `Grant`. `zone`: the VM's; None if there is no such VM for this person.
    `times`: the moments in `hint`, the words with the instant.
    """

    allow: bool
    reason: str
    hint: str = ""
    why: str = ""
    grant: Grant | None = None  # the first that allows; it alone says how much
    until: datetime | None = None
    next: datetime | None = None
    changes: datetime | None = None
    zone: ZoneInfo | None = None
    times: Mapping[str, str] = field(default_factory=dict)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the person does not get, in words: see `Grant.limits`."""
        return self.grant.limits if self.grant else ()

    @property
    def take_over(self) -> bool:
        return self.grant is not None and self.grant.take_over

    @property
    def allowed(self) -> frozenset[str] | None:
        return self.grant.allowed if self.grant else frozenset()

    @property
    def agent(self) -> frozenset[str] | None:
        return self.grant.agent if self.grant else frozenset()


def decide(vm_map: VmMap, identity: Identity, vm_name: str, facts: Facts) -> Decision:
    """Allow only what a grant of this VM gives this person, here and now.

    The refusal is the same for a VM that the person may not use and for one that does not exist.
    """
    vm = vm_map.vms.get(vm_name)
    theirs = grants_of(vm_map, identity, vm) if vm else []
    if vm is None or not theirs:
        reason = f"you may not use {quote(vm_name)}"
        hint = "list the VMs you may use, or ask the admin"
        return Decision(False, reason, hint, "no grant names you")
    zone = vm_map.zone_of(vm)
    here = [(grant, grant.schedule(zone)) for grant in theirs if not _misplaced(grant, facts)]
    schedules = [schedule for _, schedule in here]
    granted = next((grant for grant, schedule in here if schedule.is_open(facts.now)), None)
    turn = next_change(schedules, facts.now)
    if granted:
        each = [turn] if len(here) == 1 else [one.next_change(facts.now) for one in schedules]
        changes = min(filter(None, each), default=None)
        return Decision(True, "granted", grant=granted, until=turn, changes=changes, zone=zone)
    elsewhere = "" if here else _misplaced(theirs[0], facts)
    opens = dated(turn, zone) if turn else None
    reason, hint = _refusal(vm_name, elsewhere, opens)
    why = elsewhere or "your window is over"
    times = opens.times if opens else {}
    return Decision(False, reason, hint, why, next=turn, changes=turn, zone=zone, times=times)


def visible(vm_map: VmMap, identity: Identity) -> list[tuple[str, Vm]]:
    """The VMs this person may use at some time or place, sorted by name."""
    vms = sorted(vm_map.vms.items())
    return [(name, vm) for name, vm in vms if grants_of(vm_map, identity, vm)]


def grants_of(vm_map: VmMap, identity: Identity, vm: Vm) -> list[Grant]:
    """The grants of this VM that name this person, whatever the time and place."""
    who = (identity.uid, identity.user, identity.groups, identity.gids)
    return [grant for grant in vm.allow if vm_map.names(grant, *who)]


def why_not(grant: Grant, zone: ZoneInfo, facts: Facts) -> str:
    """Why this grant, which names the person, does not allow now; empty if it does."""
    return _misplaced(grant, facts) or _mistimed(grant, zone, facts.now)


def _misplaced(grant: Grant, facts: Facts) -> str:
    if grant.where == "console" and not facts.at_console:
        return "only at the console of this server"
    if grant.from_:
        networks = ", ".join(map(str, grant.from_))
        if facts.address is None:
            return f"only from {networks}, and {facts.doubt}"
        address = _own_notation(facts.address)
        if not any(address in network for network in grant.from_):
            return f"only from {networks}, not {address}"
    return ""


def _own_notation(address: Address) -> Address:
    """IPv4 for an IPv4-mapped IPv6 address: ::ffff:192.0.2.7 is 192.0.2.7."""
    return getattr(address, "ipv4_mapped", None) or address


def _mistimed(grant: Grant, zone: ZoneInfo, now: datetime) -> str:
    schedule = grant.schedule(zone)
    if schedule.is_open(now):
        return ""
    opening = schedule.next_opening(now)
    if opening is None:
        return "over: it does not open again"
    return f"not now; opens {_spoken(opening, zone)}"


def _refusal(vm_name: str, elsewhere: str, opens: Moment | None) -> tuple[str, str]:
    if elsewhere:
        return f"you may use {quote(vm_name)} {elsewhere}", ""
    reason = f"you may not use {quote(vm_name)} now"
    if opens is None:
        return reason, "your time there is over; ask the admin"
    return reason, f"your next window opens {opens.words}"


def _spoken(moment: datetime, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone)
    return f"{local:%a} {local:%Y-%m-%d} at {local:%H:%M}"
