"""Answers gates and the admin's command on control.sock. Every operation stands in one table.

Nothing in a message says who asks: `gate.peer` does. What an operation requires of the asker is
checked here, so that no handler can forget it.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from spicetunnel.broker.audit import Audit, client_address
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.people import Admins, Asker, People
from spicetunnel.common.errors import BusyError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_person_name
from spicetunnel.common.protocol import VERSION, Message, natural, text

REQUEST_TIMEOUT = 10.0  # seconds a gate may take to speak; ours takes milliseconds
A_MINUTE = 600  # requests of one kind from one person; watching asks once a second
_SPAN = 60.0  # seconds

Handler = Callable[[GateConnection, Message, Asker], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`for_admins`: only admins may. `afresh`: look the person up again, so that a new group counts
    at once. `a_minute`: the limit of requests for one person.
    """

    handler: Handler
    for_admins: bool = False
    afresh: bool = False
    a_minute: Callable[[], int] = lambda: A_MINUTE


class Control:
    """Refuses any operation that is not in `operations`."""

    def __init__(
        self, operations: Mapping[str, Operation], people: People, admins: Admins, audit: Audit
    ) -> None:
        self._operations = operations
        self._people = people
        self._admins = admins
        self._audit = audit
        self._throttle = Throttle()

    async def serve(self, connection: socket.socket) -> None:
        """One connection, from its request to its end."""
        gate = GateConnection(connection)
        request: Message | None = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await gate.receive()
            if request is not None:
                await self._answer(gate, request)
        except TimeoutError:
            self._log_refusal(gate, None, "no request came")
        except SpicetunnelError as error:
            operation = request.get("op") if request else None
            self._log_refusal(gate, operation, error.reason)
            gate.say_end("refused", error)

    async def _answer(self, gate: GateConnection, request: Message) -> None:
        if natural(request.get("v"), "v") != VERSION:
            raise ProtocolError("gate and broker are of different versions")
        name = text(request, "op")
        operation = self._operations.get(name)
        if operation is None:
            raise ProtocolError("an operation this broker does not know")
        asker = await self._asker(gate, request, afresh=operation.afresh)
        self._throttle.admit((name, asker.uid, asker.person.user), operation.a_minute())
        if operation.for_admins:
            self._admins.require(asker)
        await operation.handler(gate, request, asker)

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
        self._audit.write("refused", pid=peer.pid, uid=peer.uid, op=known, reason=reason)


class Throttle:
    """Counts each person's requests within the last minute, granted or not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[str, int, str], deque[float]] = {}

    def admit(self, who: tuple[str, int, str], limit: int) -> None:
        """`who` asks for an operation: its name, the uid, the person.

        Raises BusyError where it is more than `limit` a minute.
        """
        now = self._clock()
        self._forget(now - _SPAN)
        times = self._asked.setdefault(who, deque())
        if len(times) >= limit:
            wait = max(1, round(times[0] + _SPAN - now))
            raise BusyError(f"you have asked {limit} times within a minute", f"wait {wait} s")
        times.append(now)

    def _forget(self, before: float) -> None:
        for key, times in list(self._asked.items()):
            while times and times[0] <= before:
                times.popleft()
            if not times:
                del self._asked[key]
