"""A session from its opening to its end, whoever ends it."""

import asyncio
from typing import Any

from spicetunnel.broker import reports
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.relays import RelayError, Relays
from spicetunnel.broker.review import Review
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vmlife import follow_vm
from spicetunnel.common.errors import SpicetunnelError

LAST_WORD = 1.0  # seconds for a relay's last byte counts, after the cut
COME_BACK = 10.0  # seconds for the gate of an earlier broker's session; ours looks every 0.5 s


class Lifecycle:
    """Runs sessions, each in a task of its own."""

    def __init__(self, rules: Rules, review: Review, seats: Seats, relays: Relays) -> None:
        self._rules = rules
        self._review = review
        self._seats = seats
        self._relays = relays
        self._running: set[asyncio.Task[None]] = set()

    def start(self, session: Session) -> None:
        """The session holds its seat from now on, until it ends."""
        self._seats.add(session)
        task = asyncio.ensure_future(self._run(session))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def attend(self, session: Session, gate: GateConnection) -> None:
        """Serve the session's gate until either ends."""
        hearing = asyncio.ensure_future(reports.hear_gate(session, gate))
        try:
            await _first(hearing, session.over)
        finally:
            hearing.cancel()
        # Not reached where we are stopped ourselves: the session goes on, for our successor.
        if hearing.done():
            error = hearing.exception()
            why = f"its gate was dropped: {error}" if error else "the client left"
            session.revoke(SpicetunnelError(why))

    async def _run(self, session: Session) -> None:
        try:
            await self._serve(session)
        except Exception as error:
            session.fail(error)
        self._seats.remove(session)

    async def _serve(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(session.anchor.pidfd, _connection_lost, session)
        session.watch(asyncio.ensure_future(self._review.follow(session)))
        session.watch(asyncio.ensure_future(follow_vm(session, self._rules)))
        attended = asyncio.ensure_future(_require_gate(session))
        hearing = asyncio.ensure_future(reports.hear_relay(session))
        try:
            await _first(hearing, session.over)
            session.revoke(_loss_of_relay(hearing))
            await self._end_relay(session, hearing)
        finally:
            hearing.cancel()
            loop.remove_reader(session.anchor.pidfd)
        # Not reached where we are stopped ourselves, either.
        session.finish()
        self._relays.forget(session.id)
        await attended  # a gate that comes now still hears why

    async def _end_relay(self, session: Session, hearing: asyncio.Future[None]) -> None:
        """Have the relay's process close everything and go; one that does not is killed."""
        session.relay.end()
        gone, _ = await asyncio.wait({hearing}, timeout=LAST_WORD)
        if gone:
            return
        try:
            await self._relays.kill(session.relay.pid, session.relay.started)
        except RelayError as error:
            session.log("fault", reason=f"its relay does not end: {error.reason}")


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait for one of them; unlike `await`, a cancelled wait cancels none of them."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _require_gate(session: Session) -> None:
    """End the session if its gate does not come back in time."""
    try:
        async with asyncio.timeout(COME_BACK):
            await session.attended.wait()
    except TimeoutError:
        session.revoke(SpicetunnelError("its gate did not come back"))


def _connection_lost(session: Session) -> None:
    asyncio.get_running_loop().remove_reader(session.anchor.pidfd)
    session.revoke(SpicetunnelError("the SSH connection is gone"))


def _loss_of_relay(hearing: asyncio.Future[None]) -> SpicetunnelError:
    """Why the session ends, if nothing else has ended it."""
    error = hearing.exception() if hearing.done() else None
    said = f": {error}" if error else ""
    return SpicetunnelError(f"the server's relay has lost the session{said}", "connect again")
