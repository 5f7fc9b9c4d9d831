"""A gate's `open`: from the request to the session, or to the reason why not."""

from dataclasses import dataclass
from typing import Self

from spicetunnel.broker.dial import Place, find
from spicetunnel.broker.moments import iso
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.parts import Parts
from spicetunnel.broker.passwords import password_of
from spicetunnel.broker.peers import Anchor, anchor_of
from spicetunnel.broker.people import Asker
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.throttle import Throttle
from spicetunnel.common.errors import NotRunningError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_session_id, is_vm_name
from spicetunnel.common.protocol import Message, flag, text
from spicetunnel.policy.decide import Decision

WAIT_POLL = 1.0  # seconds between two looks at a VM that is waited for


@dataclass(frozen=True, slots=True)
class Wish:
    """What an `open` asks for; see docs/protocol.md, section 1."""

    vm: str
    take_over: bool
    wait: bool
    keep: bool
    replace: str

    @classmethod
    def of(cls, request: Message) -> Self:
        """Raises ProtocolError."""
        vm, replace = text(request, "vm"), text(request, "replace", "")
        if not is_vm_name(vm):
            raise ProtocolError("'vm' is not a VM's name")
        if replace and not is_session_id(replace):
            raise ProtocolError("'replace' is not a session's id")
        return cls(
            vm=vm,
            take_over=flag(request, "take_over"),
            wait=flag(request, "wait"),
            keep=flag(request, "keep"),
            replace=replace,
        )


class Opening:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._judge, self._people, self._seats = parts.judge, parts.people, parts.seats
        self._audit = parts.audit
        self._throttle = Throttle()

    async def open(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Serve the session to its end, or refuse it. Raises ProtocolError."""
        wish = Wish.of(request)
        try:
            session = await self._granted(gate, asker, wish)
        except SpicetunnelError as error:
            shown = {"vm": wish.vm, "reason": error.reason, "hint": error.hint or None}
            fields = {"pid": gate.peer.pid, **asker.fields, **shown}
            self._audit.write("open", decision="deny", **fields)
            gate.refuse(error)
            return
        await self._parts.lifecycle.hold(session)

    async def _granted(self, gate: GateConnection, asker: Asker, wish: Wish) -> Session:
        """The new session, told to its gate. Raises SpicetunnelError for every reason against."""
        limits = self._judge.map.limits
        self._throttle.admit(asker.uid, asker.person.user, limits.opens_per_minute)
        self._judge.require(asker, wish.vm)
        asker, place = await self._running(gate, asker, wish)
        # From here to `add` nothing waits: two people at once cannot both get the seat, and
        # the map cannot change between decision and session.
        decision = self._judge.require(asker, wish.vm)
        password = password_of(wish.vm, self._judge.vm(wish.vm), self._audit)
        anchor = anchor_of(gate.peer)
        try:
            self._seats.require_free_connection(anchor)
            self._take_seat(asker.person.user, wish, decision)
        except SpicetunnelError:
            anchor.close()
            raise
        session = self._begin(gate, asker, wish, decision, place, anchor)
        session.ready(self._judge.title(wish.vm), password)
        return session

    async def _running(self, gate: GateConnection, asker: Asker, wish: Wish) -> tuple[Asker, Place]:
        """Where the VM runs, and who asks by then. Waits for a VM that is off if that is wished."""
        told = False
        while True:
            try:
                return asker, await find(wish.vm, self._judge.vm(wish.vm).socket)
            except NotRunningError as error:
                if not wish.wait:
                    raise NotRunningError(
                        error.reason, "spice-connect --wait waits for it"
                    ) from None
            if not told:
                self._tell_waiting(gate, asker, wish.vm)
                told = True
            if await gate.leaves_within(WAIT_POLL):
                raise SpicetunnelError("the client left while it waited")
            asker = await self._people.again(asker)
            self._judge.require(asker, wish.vm)

    def _tell_waiting(self, gate: GateConnection, asker: Asker, vm: str) -> None:
        reason, hint = f"'{vm}' is not running; waiting for it to start", "Ctrl-C ends the waiting"
        gate.send({"event": "waiting", "reason": reason, "hint": hint})
        self._audit.write("waiting", pid=gate.peer.pid, **asker.fields, vm=vm)

    def _take_seat(self, user: str, wish: Wish, decision: Decision) -> None:
        if wish.replace:
            self._seats.replace(user, wish.vm, wish.replace)
        self._seats.require_room(user, self._judge.map.limits.sessions_per_user)
        if self._judge.vm(wish.vm).seat == "exclusive":
            taking = {"wanted": wish.take_over, "granted": decision.take_over}
            self._seats.take(user, wish.vm, **taking)

    def _begin(  # noqa: PLR0913, PLR0917 - what a session is made of
        self,
        gate: GateConnection,
        asker: Asker,
        wish: Wish,
        decision: Decision,
        place: Place,
        anchor: Anchor,
    ) -> Session:
        session = Session(
            asker=asker,
            vm_name=wish.vm,
            place=place,
            denied=decision.denied,
            keep=wish.keep,
            gate=gate,
            anchor=anchor,
            grace=self._parts.grace,
            audit=self._audit,
            records=self._parts.records,
            until=decision.until,
        )
        session.write_record()
        self._seats.add(session)
        session.log(
            "open",
            decision="allow",
            grant=decision.grant.source if decision.grant else None,
            denied=sorted(decision.denied) or None,
            until=iso(decision.until) or None,
        )
        return session
