"""Answers gates on control.sock. Nothing in a message says who asks: `gate.peer` does."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

from spicetunnel.broker.audit import Audit, client_address
from spicetunnel.broker.dial import dial, is_running
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.peers import anchor_of
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.sessions import Session, SessionTable
from spicetunnel.common.errors import NotPermittedError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_person_name, is_vm_name
from spicetunnel.common.protocol import VERSION, Message, flag, natural, text
from spicetunnel.policy.decide import Decision

REQUEST_TIMEOUT = 10.0  # seconds a gate may take to speak; ours takes milliseconds
ROWS_A_PACKET = 100


class Control:
    def __init__(
        self,
        judge: Judge,
        people: People,
        sessions: SessionTable,
        lifecycle: Lifecycle,
        audit: Audit,
    ) -> None:
        self._judge = judge
        self._people = people
        self._sessions = sessions
        self._lifecycle = lifecycle
        self._audit = audit
        self._answers = {
            "open": self._open,
            "list": self._list,
            "whoami": self._whoami,
            "rejected": self._rejected,
        }

    async def serve(self, gate: GateConnection) -> None:
        """One gate's connection, from its request to its end."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await gate.receive()
            if request is not None:
                await self._answer(gate, request)
        except TimeoutError:
            self._log(gate, "refused", reason="no request came")
        except SpicetunnelError as error:
            self._log(gate, "refused", reason=error.reason)
            gate.refuse(error)

    async def _answer(self, gate: GateConnection, request: Message) -> None:
        if natural(request.get("v"), "v") != VERSION:
            raise ProtocolError("gate and broker are of different versions")
        operation = text(request, "op")
        answer = self._answers.get(operation)
        if answer is None:
            raise ProtocolError("an operation this broker does not know")
        client, as_name = client_address(text(request, "from", "")), text(request, "as", "")
        if as_name and not is_person_name(as_name):
            raise ProtocolError("'as' is not a person's name")
        if operation == "open":
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
        for start in range(0, max(len(rows), 1), ROWS_A_PACKET):
            end = start + ROWS_A_PACKET
            part: Message = {"event": "vms", "vms": rows[start:end], "more": end < len(rows)}
            if not await gate.send_in_turn(part):
                return

    def _rows(self, asker: Asker) -> Iterator[Message]:
        for name, vm in self._judge.visible(asker):
            decision = self._judge.decide(asker, name)
            holder = self._sessions.at(name)
            yield {
                "name": name,
                "title": vm.title,
                "state": _state(holder, vm.socket, allowed=decision.allow),
                "busy_by": holder.asker.person.user if holder else "",
                "until": _iso(decision.until),
                "next": _iso(decision.next),
            }

    async def _open(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        name, take_over = text(request, "vm"), flag(request, "take_over")
        if not is_vm_name(name):
            raise ProtocolError("'vm' is not a VM's name")
        try:
            session = await self._grant(gate, name, asker, take_over=take_over)
        except SpicetunnelError as error:
            shown = {"vm": name, "reason": error.reason, "hint": error.hint or None}
            self._log(gate, "open", decision="deny", **asker.fields, **shown)
            gate.refuse(error)
            return
        await self._lifecycle.hold(session)

    async def _grant(
        self, gate: GateConnection, name: str, asker: Asker, *, take_over: bool
    ) -> Session:
        """The new session, told to its gate. Raises SpicetunnelError for every reason against."""
        self._require_allowed(asker, name)
        (await dial(name, self._judge.vm(name).socket)).close()
        # From here to `add` nothing waits: two people at once cannot both get the seat, and
        # the map cannot change between decision and session.
        decision = self._require_allowed(asker, name)
        vm = self._judge.vm(name)
        anchor = anchor_of(gate.peer)
        try:
            self._sessions.require_free_connection(anchor)
            taking = {"wanted": take_over, "granted": decision.take_over}
            self._sessions.take_seat(asker.person, name, **taking)
        except SpicetunnelError:
            anchor.close()
            raise
        session = Session(asker, name, vm.socket, decision.denied, gate, anchor, self._audit)
        self._sessions.add(session)
        session.log(
            "open",
            decision="allow",
            grant=decision.grant.source if decision.grant else None,
            denied=sorted(decision.denied) or None,
            until=_iso(decision.until) or None,
        )
        gate.send(
            {
                "event": "ready",
                "session": session.id,
                "vm": name,
                "title": vm.title,
                "until": _iso(decision.until),
            }
        )
        return session

    def _require_allowed(self, asker: Asker, name: str) -> Decision:
        decision = self._judge.decide(asker, name)
        if not decision.allow:
            raise NotPermittedError(decision.reason, decision.hint)
        return decision

    def _log(self, gate: GateConnection, event: str, **fields: object) -> None:
        fields.setdefault("uid", gate.peer.uid)
        self._audit.write(event, pid=gate.peer.pid, **fields)


def _state(holder: Session | None, socket_path: str, *, allowed: bool) -> str:
    if holder:
        return "busy"
    if not allowed:
        return "closed"
    return "free" if is_running(socket_path) else "off"


def _iso(moment: datetime | None) -> str:
    """With the server's offset; empty for none."""
    return moment.astimezone().isoformat(timespec="seconds") if moment else ""
