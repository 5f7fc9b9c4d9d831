"""The short operations of a gate: list, whoami, and the report of a rejected command."""

import asyncio
from typing import NamedTuple

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.people import Asker
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.vm import State, States
from spicetunnel.common.protocol import Message, text
from spicetunnel.policy.decide import Decision, visible
from spicetunnel.policy.moments import instant, zone_name
from spicetunnel.policy.vmmap import Vm

_A_TURN = 50  # VMs that are decided in one go


class _Visible(NamedTuple):
    """A VM that the person may see, and who is there; `own`: nobody but this person."""

    name: str
    vm: Vm
    decision: Decision
    users: list[str]
    own: bool

    @property
    def may_be_free(self) -> bool:
        return self.decision.allow and not self.users

    def row(self, state: State) -> Message:
        return {
            "name": self.name,
            "title": self.vm.title,
            "state": self._word(state),
            "busy_by": ", ".join(self.users),
            "until": instant(self.decision.until, self.decision.zone),
            "next": instant(self.decision.next, self.decision.zone),
            "zone": zone_name(self.decision.until or self.decision.next, self.decision.zone),
            "limits": list(self.decision.limits),
            "take_over": self._may_take_over,
        }

    @property
    def _may_take_over(self) -> bool:
        held = bool(self.users) and self.vm.seat == "exclusive"
        return held and self.decision.allow and (self.own or self.decision.take_over)

    def _word(self, state: State) -> str:
        if not self.decision.allow:
            return "closed"
        if self.users:
            return "shared" if self.vm.seat == "shared" else "busy"
        return "free" if state == "running" else state


class Answers:
    def __init__(self, rules: Rules, seats: Seats, states: States, audit: Audit) -> None:
        self._rules = rules
        self._seats = seats
        self._states = states
        self._audit = audit

    async def whoami(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        person = asker.person
        groups = sorted(person.groups)
        uid = person.uid if person.uid >= 0 else None
        gate.send({"event": "person", "user": person.user, "uid": uid, "groups": groups})

    async def rejected(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        about = {"pid": gate.peer.pid, "reason": "not a command of this gateway", **asker.fields}
        self._audit.write("command", decision="deny", command=text(request, "command"), **about)

    async def list_vms(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        rows = await self._rows(asker)
        self._audit.write("list", pid=gate.peer.pid, vms=len(rows), **asker.fields)
        await gate.send_rows("vms", rows)

    async def _rows(self, asker: Asker) -> list[Message]:
        found = await self._visible(asker)
        states = await self._states.of(each.vm.socket for each in found if each.may_be_free)
        return [each.row(states.get(each.vm.socket, "off")) for each in found]

    async def _visible(self, asker: Asker) -> list[_Visible]:
        vm_map, users = self._rules.current(), self._seats.users()
        found: list[_Visible] = []
        for name, vm in visible(vm_map, asker.person):
            if len(found) % _A_TURN == 0:
                await asyncio.sleep(0)  # with thousands of VMs, the others have their turns
            decision = self._rules.decide(vm_map, asker, name)
            there = sorted(users.get(name, ()))
            own = there == [asker.person.user]
            found.append(_Visible(name, vm, decision, there, own))
        return found
