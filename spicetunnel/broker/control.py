"""Answers gates on control.sock. Nothing in a message says who asks: `gate.peer` does."""

import asyncio
from collections.abc import Iterator

from spicetunnel.broker.audit import Audit, client_address
from spicetunnel.broker.dial import dial, is_running
from spicetunnel.broker.lifecycle import hold
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.peers import anchor_of
from spicetunnel.broker.people import identify
from spicetunnel.broker.sessions import Session, SessionTable
from spicetunnel.common.errors import NotPermittedError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_vm_name
from spicetunnel.common.protocol import VERSION, Message, flag, natural, text
from spicetunnel.policy.decide import Identity, decide, visible

REQUEST_TIMEOUT = 10.0  # seconds a gate may take to speak; ours takes milliseconds
ROWS_A_PACKET = 100


class Control:
    def __init__(self, maps: MapStore, sessions: SessionTable, audit: Audit) -> None:
        self._maps = maps
        self._sessions = sessions
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
        answer = self._answers.get(text(request, "op"))
        if answer is None:
            raise ProtocolError("an operation this broker does not know")
        client = client_address(text(request, "from", ""))
        person = await identify(gate.peer.uid)
        await answer(gate, request, person, client)

    async def _whoami(
        self, gate: GateConnection, _request: Message, person: Identity, _client: str | None
    ) -> None:
        groups = sorted(person.groups)
        gate.send({"event": "person", "user": person.user, "uid": person.uid, "groups": groups})

    async def _rejected(
        self, gate: GateConnection, request: Message, person: Identity, client: str | None
    ) -> None:
        self._log(
            gate,
            "command",
            decision="deny",
            user=person.user,
            client=client,
            command=text(request, "command"),
            reason="not a command of this gateway",
        )

    async def _list(
        self, gate: GateConnection, _request: Message, person: Identity, client: str | None
    ) -> None:
        rows = list(self._rows(person))
        self._log(gate, "list", user=person.user, client=client, vms=len(rows))
        for start in range(0, max(len(rows), 1), ROWS_A_PACKET):
            end = start + ROWS_A_PACKET
            part: Message = {"event": "vms", "vms": rows[start:end], "more": end < len(rows)}
            if not await gate.send_in_turn(part):
                return

    def _rows(self, person: Identity) -> Iterator[Message]:
        for name, vm in visible(self._maps.current, person):
            holder = self._sessions.at(name)
            yield {
                "name": name,
                "title": vm.title,
                "state": "busy" if holder else "free" if is_running(vm.socket) else "off",
                "busy_by": holder.person.user if holder else "",
            }

    async def _open(
        self, gate: GateConnection, request: Message, person: Identity, client: str | None
    ) -> None:
        name, take_over = text(request, "vm"), flag(request, "take_over")
        if not is_vm_name(name):
            raise ProtocolError("'vm' is not a VM's name")
        try:
            session = await self._grant(gate, name, person, client, take_over=take_over)
        except SpicetunnelError as error:
            about = {"user": person.user, "client": client, "vm": name, "reason": error.reason}
            self._log(gate, "open", decision="deny", **about)
            gate.refuse(error)
            return
        await hold(session, self._sessions)

    async def _grant(
        self,
        gate: GateConnection,
        name: str,
        person: Identity,
        client: str | None,
        *,
        take_over: bool,
    ) -> Session:
        """The new session, told to its gate. Raises SpicetunnelError for every reason against."""
        vm_map = self._maps.current
        decision = decide(vm_map, person, name)
        if not decision.allow:
            raise NotPermittedError(decision.reason, decision.hint)
        vm = vm_map.vms[name]
        (await dial(name, vm.socket)).close()
        if self._maps.current is not vm_map:
            raise SpicetunnelError("the map has just changed", "try again")
        # From here to `add` nothing waits: two people at once cannot both get the seat.
        anchor = anchor_of(gate.peer)
        try:
            self._sessions.require_free_connection(anchor)
            self._sessions.take_seat(person, name, wanted=take_over, granted=decision.take_over)
        except SpicetunnelError:
            anchor.close()
            raise
        session = Session(person, name, vm.socket, client, gate, anchor, self._audit)
        self._sessions.add(session)
        grant = decision.grant.source if decision.grant else None
        session.log("open", decision="allow", grant=grant)
        gate.send({"event": "ready", "session": session.id, "vm": name, "title": vm.title})
        return session

    def _log(self, gate: GateConnection, event: str, **fields: object) -> None:
        self._audit.write(event, uid=gate.peer.uid, pid=gate.peer.pid, **fields)
