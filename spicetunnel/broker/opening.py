"""A gate's `open`: from the request to the session, or to the reason why not."""

import asyncio
import time
from typing import NamedTuple

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.password import password_of
from spicetunnel.broker.peers import anchor_of
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.records import Records
from spicetunnel.broker.relays import Relay, Relays
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats, SeatTakenError
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place
from spicetunnel.broker.waiting import Waiting, Wish
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import Message
from spicetunnel.policy.decide import Decision
from spicetunnel.policy.moments import instant
from spicetunnel.policy.vmmap import VmMap

#: Seconds that a refusal takes at least. A decision takes longer the more grants a VM has: who may
#: not see a VM must not learn by a clock that it exists.
REFUSAL = 0.1
_WAITING = 4  # gates of one person beside those of their sessions


class Opening(NamedTuple):
    """`grace`: seconds a session may go on without a broker. `tunnel`: the path of tunnel.sock."""

    rules: Rules
    people: People
    seats: Seats
    relays: Relays
    lifecycle: Lifecycle
    records: Records
    audit: Audit
    grace: int
    tunnel: str

    def opens_a_minute(self) -> int:
        return self.rules.current().limits.opens_per_minute

    def at_once(self) -> int:
        """Gates of one person: those of their sessions, and a few that wait or take over."""
        return self.rules.current().limits.sessions_per_user + _WAITING

    async def open(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Serve the session's gate to the end, or refuse it. Raises ProtocolError."""
        wish = Wish.of(request)
        refusable_at = time.monotonic() + REFUSAL
        try:
            session = await self._granted(gate, asker, wish)
        except SpicetunnelError as error:
            shown = {"vm": wish.vm, "reason": error.reason, "hint": error.hint or None}
            fields = {"pid": gate.peer.pid, **asker.fields, **shown}
            self.audit.write("open", decision="deny", **fields)
            await asyncio.sleep(refusable_at - time.monotonic())
            gate.say_end("refused", error)
            return
        await self.lifecycle.attend(session, gate)

    async def _granted(self, gate: GateConnection, asker: Asker, wish: Wish) -> Session:
        """Begin the session, and tell its gate. Raises SpicetunnelError if it is refused."""
        waiting = Waiting(gate, asker, wish, self.rules, self.people, self.seats, self.audit)
        while True:
            asker, place = await waiting.until_openable()
            session_id = self.seats.new_id()
            relay = await self.relays.begin(session_id, self.grace)
            try:
                return self._begin(gate, asker, wish, place, session_id, relay)
            except BaseException as error:
                relay.end()
                relay.close()
                self.relays.forget(session_id)
                if not (wish.wait and isinstance(error, SeatTakenError)):
                    raise  # otherwise somebody was faster

    def _begin(  # noqa: PLR0913, PLR0917 - what a session is made of
        self,
        gate: GateConnection,
        asker: Asker,
        wish: Wish,
        place: Place,
        session_id: str,
        relay: Relay,
    ) -> Session:
        """Decide, take the seat and begin, in one step: nothing here waits, so two people at once
        cannot both get the seat, and the map cannot change between decision and session.
        """
        self.audit.require()
        vm_map = self.rules.current()
        decision = self.rules.require(vm_map, asker, wish.vm)
        vm = vm_map.vms[wish.vm]
        password = password_of(wish.vm, vm, self.audit)
        anchor = anchor_of(gate.peer)
        try:
            self.seats.require_free_connection(anchor)
            self.seats.require_own_socket(wish.vm, place)
            self._take_seat(asker.person.user, wish, vm_map, decision)
            session = Session(
                id=session_id,
                asker=asker,
                vm_name=wish.vm,
                place=place,
                keep=wish.keep,
                anchor=anchor,
                relay=relay,
                grace=self.grace,
                tunnel=self.tunnel,
                audit=self.audit,
                records=self.records,
            )
            session.follow(decision)
            session.write_record()
        except BaseException:
            anchor.close()
            raise
        session.attend(gate)
        session.log(
            "open",
            decision="allow",
            grant=decision.grant.source if decision.grant else None,
            channels=None if decision.allowed is None else sorted(decision.allowed),
            agent=None if decision.agent is None else sorted(decision.agent),
            until=instant(decision.until) or None,
        )
        self.lifecycle.start(session)
        session.ready(vm.title, password)
        return session

    def _take_seat(self, user: str, wish: Wish, vm_map: VmMap, decision: Decision) -> None:
        """Raises BusyError."""
        if wish.replace:
            self.seats.replace(user, wish.vm, wish.replace)
        self.seats.require_room(user, vm_map.limits.sessions_per_user)
        if vm_map.vms[wish.vm].seat == "exclusive":
            self.seats.take(wish.claim(user, vm_map, decision))
