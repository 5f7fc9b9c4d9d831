"""Answers gates and the admin's command on control.sock. Every operation stands in one table.

Nothing in a message says who asks: `gate.peer` does. What an operation requires of the asker is
checked here, so that no handler can forget it.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from spicetunnel.broker.audit import Audit, client_address
from spicetunnel.broker.bounds import AtOnce, Rate, Throttle
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.peers import Peer
from spicetunnel.broker.people import Admins, Asker, People
from spicetunnel.common.errors import BusyError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_person_name
from spicetunnel.common.protocol import VERSION, Message, natural, text

REQUEST_TIMEOUT = 10.0  # seconds a gate may take to speak; ours takes milliseconds
A_MINUTE = 120  # requests of one kind from one person
WATCHING = 600  # of those that a command repeats each second, in several windows
AT_ONCE = 4  # requests of one kind from one person that are being answered
UNKNOWN = 256  # connections of one uid whose person is not known yet; a shared account has many
CONNECTS, CONNECTS_A_SECOND = 512, 100.0  # of one uid: after our restart all gates come at once

Handler = Callable[[GateConnection, Message, Asker], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`for_admins`: only admins may. `afresh`: look the person up again, so that a new group counts
    at once. `a_minute`, `at_once`: the limits of requests for one person.
    """

    handler: Handler
    for_admins: bool = False
    afresh: bool = False
    a_minute: Callable[[], int] = lambda: A_MINUTE
    at_once: Callable[[], int] = lambda: AT_ONCE


class Call(NamedTuple):
    """One request for an operation. `who` is counted: the name, the uid, the person."""

    name: str
    operation: Operation
    request: Message
    asker: Asker

    @property
    def who(self) -> tuple[str, int, str]:
        return self.name, self.asker.uid, self.asker.person.user


class Control:
    """Refuses any operation that is not in `operations`."""

    def __init__(
        self, operations: Mapping[str, Operation], people: People, admins: Admins, audit: Audit
    ) -> None:
        self._operations = operations
        self._people = people
        self._admins = admins
        self._audit = audit
        self._connects = Rate(CONNECTS, CONNECTS_A_SECOND)
        self._unknown = AtOnce()
        self._throttle = Throttle()
        self._at_once = AtOnce()

    def door(self, connection: socket.socket, peer: Peer) -> Coroutine[None, None, None] | None:
        """Serve the connection, if this uid does not make too many."""
        if not self._connects.allows(peer.uid):
            reason = f"more than {CONNECTS_A_SECOND:g} connections a second"
        elif not self._unknown.enter(peer.uid, UNKNOWN):
            reason = f"{UNKNOWN} connections that ask for nothing"
        else:
            return self._serve(connection, peer)
        self._audit.repeated("refused", reason, uid=peer.uid)
        return None

    async def _serve(self, connection: socket.socket, peer: Peer) -> None:
        """One connection, from its request to its end."""
        gate = GateConnection(connection)
        request: Message | None = None
        try:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    request = await gate.receive()
                call = await self._call(gate, request) if request is not None else None
            finally:
                self._unknown.leave(peer.uid)
            if call is not None:
                await self._answer(gate, call)
        except TimeoutError:
            self._log_refusal(gate, None, "no request came")
        except SpicetunnelError as error:
            operation = request.get("op") if request else None
            self._log_refusal(gate, operation, error.reason)
            gate.say_end("refused", error)

    async def _call(self, gate: GateConnection, request: Message) -> Call:
        """The operation asked for, and by whom. Raises SpicetunnelError if they may not."""
        if natural(request.get("v"), "v") != VERSION:
            raise ProtocolError("gate and broker are of different versions")
        name = text(request, "op")
        operation = self._operations.get(name)
        if operation is None:
            raise ProtocolError("an operation this broker does not know")
        asker = await self._asker(gate, request, afresh=operation.afresh)
        call = Call(name, operation, request, asker)
        self._throttle.admit(call.who, operation.a_minute())
        if operation.for_admins:
            self._admins.require(asker)
        return call

    async def _answer(self, gate: GateConnection, call: Call) -> None:
        if not self._at_once.enter(call.who, call.operation.at_once()):
            raise BusyError("you ask for too much at once", "wait for the answers before this one")
        try:
            await call.operation.handler(gate, call.request, call.asker)
        finally:
            self._at_once.leave(call.who)

    async def _asker(self, gate: GateConnection, request: Message, *, afresh: bool) -> Asker:
        """Raises ProtocolError, or NotPermittedError if the person has no account."""
        client, as_name = client_address(text(request, "from", "")), text(request, "as", "")
        if as_name and not is_person_name(as_name):
            raise ProtocolError("'as' is not a person's name")
        if afresh:
            self._people.forget(gate.peer.uid, as_name)
        return await self._people.asker(gate.peer.uid, client, as_name)

    def _log_refusal(self, gate: GateConnection, operation: object, reason: str) -> None:
        known = next((name for name in self._operations if name == operation), None)
        peer = gate.peer
        self._audit.repeated("refused", reason, pid=peer.pid, uid=peer.uid, op=known)
