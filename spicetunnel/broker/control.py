"""Answers gates, and the admin's command, on control.sock.

Nothing in a message says who asks: `gate.peer` does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

from spicetunnel.broker.audit import Audit, client_address
from spicetunnel.broker.dial import is_running
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.moments import iso
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.seats import Seats
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_person_name
from spicetunnel.common.protocol import VERSION, Message, natural, text
from spicetunnel.policy.decide import Decision
from spicetunnel.policy.vmmap import Vm

REQUEST_TIMEOUT = 10.0  # seconds a gate may take to speak; ours takes milliseconds

Answer = Callable[[GateConnection, Message, Asker], Awaitable[None]]

#: The operations before which the directory is asked afresh: a new group counts at once.
_ASK_AFRESH = frozenset({"open"})

#: The operations that bring descriptors.
_WITH_DESCRIPTORS = frozenset({"resume"})


class Control:
    """`answers` are those of the other parts, by operation."""

    def __init__(
        self,
        judge: Judge,
        people: People,
        seats: Seats,
        audit: Audit,
        answers: Mapping[str, Answer],
    ) -> None:
        self._judge = judge
        self._people = people
        self._seats = seats
        self._audit = audit
        self._answers: dict[str, Answer] = {
            "list": self._list,
            "whoami": self._whoami,
            "rejected": self._rejected,
            **answers,
        }

    async def serve(self, gate: GateConnection) -> None:
        """One connection, from its request to its end."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await gate.request()
            if request is not None:
                await self._answer(gate, request)
        except TimeoutError:
            self._log(gate, "refused", reason="no request came")
        except SpicetunnelError as error:
            self._log(gate, "refused", reason=error.reason)
            gate.refuse(error)
        finally:
            gate.close_descriptors()

    async def _answer(self, gate: GateConnection, request: Message) -> None:
        if natural(request.get("v"), "v") != VERSION:
            raise ProtocolError("gate and broker are of different versions")
        operation = text(request, "op")
        answer = self._answers.get(operation)
        if answer is None:
            raise ProtocolError("an operation this broker does not know")
        if gate.has_descriptors and operation not in _WITH_DESCRIPTORS:
            raise ProtocolError(f"'{operation}' came with descriptors")
        client, as_name = client_address(text(request, "from", "")), text(request, "as", "")
        if as_name and not is_person_name(as_name):
            raise ProtocolError("'as' is not a person's name")
        if operation in _ASK_AFRESH:
            self._people.forget(gate.peer.uid, as_name)
        asker = await self._people.asker(gate.peer.uid, client, as_name)
        await answer(gate, request, asker)

    async def _whoami(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        person = asker.person
        groups = sorted(person.groups)
        uid = person.uid if person.uid >= 0 else None
        gate.send({"event": "person", "user": person.user, "uid": uid, "groups": groups})

    async def _rejected(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        reason = "not a command of this gateway"
        command = text(request, "command")
        self._log(gate, "command", decision="deny", reason=reason, command=command, **asker.fields)

    async def _list(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        rows = list(self._rows(asker))
        self._log(gate, "list", vms=len(rows), **asker.fields)
        await gate.send_rows("vms", rows)

    def _rows(self, asker: Asker) -> Iterator[Message]:
        for name, vm in self._judge.visible(asker):
            decision = self._judge.decide(asker, name)
            holders = sorted({each.user for each in self._seats.at(name)})
            yield {
                "name": name,
                "title": vm.title,
                "state": _state(vm, decision, is_held=bool(holders)),
                "busy_by": ", ".join(holders),
                "until": iso(decision.until),
                "next": iso(decision.next),
            }

    def _log(self, gate: GateConnection, event: str, **fields: object) -> None:
        fields.setdefault("uid", gate.peer.uid)
        self._audit.write(event, pid=gate.peer.pid, **fields)


def _state(vm: Vm, decision: Decision, *, is_held: bool) -> str:
    if is_held:
        return "shared" if vm.seat == "shared" else "busy"
    if not decision.allow:
        return "closed"
    return "free" if is_running(vm.socket) else "off"
