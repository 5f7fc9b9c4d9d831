"""The short operations of a gate: list, whoami, and the report of a rejected command."""

from collections.abc import Iterator

from spicetunnel.broker.audit import Audit, iso
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.people import Asker
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.vm import is_running
from spicetunnel.common.protocol import Message, text
from spicetunnel.policy.decide import Decision, visible
from spicetunnel.policy.vmmap import Vm


class Answers:
    def __init__(self, rules: Rules, seats: Seats, audit: Audit) -> None:
        self._rules = rules
        self._seats = seats
        self._audit = audit

    async def whoami(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        person = asker.person
        groups = sorted(person.groups)
        uid = person.uid if person.uid >= 0 else None
        gate.send({"event": "person", "user": person.user, "uid": uid, "groups": groups})

    async def rejected(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        about = {"pid": gate.peer.pid, "reason": "not a command of this gateway", **asker.fields}
        self._audit.write("command", decision="deny", command=text(request, "command"), **about)

    async def list(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        rows = list(self._rows(asker))
        self._audit.write("list", pid=gate.peer.pid, vms=len(rows), **asker.fields)
        await gate.send_rows("vms", rows)

    def _rows(self, asker: Asker) -> Iterator[Message]:
        vm_map = self._rules.current()
        for name, vm in visible(vm_map, asker.person):
            decision = self._rules.decide(vm_map, asker, name)
            users = sorted({each.user for each in self._seats.at(name)})
            yield {
                "name": name,
                "title": vm.title,
                "state": _state(vm, decision, is_held=bool(users)),
                "busy_by": ", ".join(users),
                "until": iso(decision.until),
                "next": iso(decision.next),
            }


def _state(vm: Vm, decision: Decision, *, is_held: bool) -> str:
    if is_held:
        return "shared" if vm.seat == "shared" else "busy"
    if not decision.allow:
        return "closed"
    return "free" if is_running(vm.socket) else "off"
