"""`spicetunnel explain`: the broker's decision about a person and a VM, and the reasons."""

import dataclasses
import ipaddress
import json
import os
import shlex
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click

from spicetunnel.admin import people
from spicetunnel.admin.broker import run_dir_option
from spicetunnel.admin.grantwords import who
from spicetunnel.admin.options import dated, json_option, map_option, no_such_vm
from spicetunnel.admin.rules import ADMINS_ONLY, lending, load_rules
from spicetunnel.admin.terminal import field, hint, say, wrapped
from spicetunnel.common.errors import UsageError
from spicetunnel.policy.accounts import NO_UID
from spicetunnel.policy.decide import Facts, Identity, decide, grants_of, why_not
from spicetunnel.policy.problems import printable, quote
from spicetunnel.policy.temporary import STATE_DIR, Lent, with_temporary
from spicetunnel.policy.vmmap import Grant, VmMap

#: By whether it is allowed; None: cannot tell.
_WORDS = {
    True: ("yes", "may"),
    False: ("no", "may not"),
    None: ("cannot tell", "may not, unless by a temporary grant,"),
}
_COLOURS = {True: "green", False: "red", None: "yellow"}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@click.command()
@click.argument("user")
@click.argument("vm")
@click.option("--at", metavar="MOMENT", help="Such as '2026-12-24 18:00', in the VM's time zone.")
@click.option("--from", "address", metavar="ADDR", help="As if USER came from there.")
@click.option("--console", is_flag=True, help="As if USER sat at this server's console.")
@json_option
@map_option
@click.option(
    "--state-dir",
    default=STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="Where the broker keeps temporary grants.",
)
@run_dir_option
def explain(  # noqa: PLR0913, PLR0917 - each is one of the command line's
    user: str,
    vm: str,
    at: str | None,
    address: str | None,
    console: bool,
    as_json: bool,
    map_file: str,
    state_dir: str,
    run_dir: str,
) -> int:
    """Say whether USER may use VM, by which grant, and why the others do not match.

    Exit code 0: allowed. 77: not allowed. 66: cannot tell, as the temporary grants cannot be read.
    67: no such user. Members of the admin group, who may not read the files, get map and grants
    from the running broker.
    """
    plain, lent = load_rules(map_file, run_dir), lending(state_dir, run_dir)
    vm_map = with_temporary(plain, lent.grants)
    identity = people.identify(user, vm_map)
    zone = _zone(vm_map, vm)
    doubt = "no address was given with --from"
    # As the broker does: only somebody with a uid can sit at the console.
    at_console = console and identity.uid != NO_UID
    moment = dated("--at", at, zone) if at is not None else datetime.now(UTC)
    facts = Facts(moment, at_console, _parse_address(address), doubt)
    case = Case(vm_map, identity, vm, facts, is_sure=not lent.doubt)
    if lent.doubt:
        _tell_doubt(lent.doubt)
    say(json.dumps(case.as_json()) if as_json else case.as_text())
    return os.EX_OK if case.allow else os.EX_NOINPUT if case.allow is None else os.EX_NOPERM


def _tell_doubt(doubt: str) -> None:
    say(f"spicetunnel: the temporary grants cannot be read: {doubt}", err=True)
    hint(ADMINS_ONLY)


def _zone(vm_map: VmMap, name: str) -> ZoneInfo:
    vm = vm_map.vms.get(name)
    return vm_map.zone_of(vm) if vm else vm_map.timezone or ZoneInfo("UTC")


def _parse_address(text: str | None) -> _Address | None:
    try:
        return ipaddress.ip_address(text) if text is not None else None
    except ValueError:
        reason = f"--from must be an IP address, not {quote(text or '')}"
        raise UsageError(reason, "write it like 192.0.2.7 or 2001:db8::7") from None


class Case:
    """One decision, made by the broker's own code, and why each grant matches or not.

    `allow` is None if the temporary grants, which may allow it, are not known (`is_sure` is false).
    """

    def __init__(
        self,
        vm_map: VmMap,
        identity: Identity,
        vm_name: str,
        facts: Facts,
        *,
        is_sure: bool,
    ) -> None:
        self.user, self.vm_name, self.facts = identity.user, vm_name, facts
        self.zone = _zone(vm_map, vm_name)
        self.via = people.shared_accounts(identity, vm_map)
        self.decision = decide(vm_map, identity, vm_name, facts)
        vm = vm_map.vms.get(vm_name)
        self._grants = vm.allow if vm else ()
        self._theirs = grants_of(vm_map, identity, vm) if vm else []
        could_be_lent = not is_sure and vm is not None and not self.decision.allow
        self.allow = None if could_be_lent else self.decision.allow
        if not self.decision.allow:
            words = self._why_not() if vm else no_such_vm(vm_name, vm_map.vms)
            self.decision = dataclasses.replace(self.decision, reason=words[0], hint=words[1])

    def _why_not(self) -> tuple[str, str]:
        """Reason and hint for the admin; the broker's own words are for the person."""
        user = printable(self.user)
        if self._theirs:
            return f"no grant that names {user} holds", ""  # each one's own reason follows
        return (
            f"no grant names {user}",
            f"spicetunnel grant {shlex.quote(user)} {self.vm_name} --for 2h",
        )

    def as_json(self) -> dict[str, object]:
        decision = self.decision
        return {
            "user": self.user,
            "via": list(self.via) or None,
            "vm": self.vm_name,
            "at": self._iso(self.facts.now),
            "allow": self.allow,
            "reason": decision.reason,
            "hint": decision.hint,
            "grant": self._place(decision.grant) if decision.grant else None,
            "until": self._iso(decision.until),
            "next": self._iso(decision.next),
            "channels": {"allow": _sorted(decision.allowed)},
            "agent": _sorted(decision.agent),
            "take_over": decision.take_over,
            "misses": [{**self._place(grant), "why": why} for grant, why in self._misses()],
        }

    def as_text(self) -> str:
        decision = self.decision
        answer = self._allowed() if decision.allow else self._refused()
        word, may = _WORDS[self.allow]
        asked = f"{printable(self.user)} {may} use {quote(self.vm_name)}, {self._spoken()}"
        if self.via:
            answer = [("account", f"none here: {people.comes_through(self.via)}"), *answer]
        lines = [
            f"{click.style(word, fg=_COLOURS[self.allow])}: {asked}",
            *(field(*each) for each in answer),
        ]
        others = [(grant, why) for grant, why in self._others() if grant is not decision.grant]
        if others:
            lines += ["", "other grants:" if decision.allow else "grants:"]
            lines += [wrapped(f"{grant.source}: {why}", "  ", "      ") for grant, why in others]
        return "\n".join(lines)

    def _allowed(self) -> list[tuple[str, str]]:
        decision = self.decision
        lent = decision.grant.record if isinstance(decision.grant, Lent) else None
        return [
            ("grant", decision.grant.source if decision.grant else ""),
            *([("reason", lent.reason)] if lent and lent.reason else []),
            ("until", self._spoken(decision.until) if decision.until else "no end"),
            ("channels", _listed(decision.allowed)),
            *([("agent", _listed(decision.agent))] if decision.agent is not None else []),
            ("take over", "yes" if decision.take_over else "no"),
        ]

    def _refused(self) -> list[tuple[str, str]]:
        decision = self.decision
        opening = self._spoken(decision.next) if decision.next else "none"
        answer = [("reason", decision.reason), ("hint", decision.hint), ("next", opening)]
        return [(name, text) for name, text in answer if text]

    def _misses(self) -> list[tuple[Grant, str]]:
        return [(grant, why) for grant, why in self._whys() if why]

    def _others(self) -> list[tuple[Grant, str]]:
        also = "matches too; the first that does decides"
        return [(grant, why or also) for grant, why in self._whys()]

    def _whys(self) -> list[tuple[Grant, str]]:
        return [(grant, self._why(grant)) for grant in self._grants]

    def _why(self, grant: Grant) -> str:
        # By identity: two equal grants are still two lines of the map.
        if any(grant is each for each in self._theirs):
            return why_not(grant, self.zone, self.facts)
        return f"names {who(grant).removeprefix('user ')} only"

    def _place(self, grant: Grant) -> dict[str, object]:
        if isinstance(grant, Lent):
            given = grant.record
            about = {"by": given.by, "reason": given.reason, "until": self._iso(given.until)}
            return {"temporary": given.id, **about}
        file, line = grant.place
        return {"file": file, "line": line}

    def _iso(self, moment: datetime | None) -> str | None:
        return moment.astimezone(self.zone).isoformat(timespec="seconds") if moment else None

    def _spoken(self, moment: datetime | None = None) -> str:
        local = (moment or self.facts.now).astimezone(self.zone)
        return f"{local:%a} {local:%Y-%m-%d} at {local:%H:%M} ({local:%Z})"


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    """For JSON; null for all of them."""
    return None if names is None else sorted(names)


def _listed(names: frozenset[str] | None) -> str:
    return "all" if names is None else f"only {', '.join(sorted(names))}"
