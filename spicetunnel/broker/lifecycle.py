"""A session from its opening to its end, whoever ends it; what its gate and its relay tell us."""

import asyncio
from typing import Any

from spicetunnel.broker.bounds import Rate
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.relays import RelayError, Relays, channel_number
from spicetunnel.broker.review import Review
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vmlife import follow_vm
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import Message, natural, number, text

LAST_WORD = 1.0  # seconds for a relay's last byte counts, after the cut
GATE_WORDS, GATE_WORDS_A_SECOND = 20, 2.0  # ours says a word for each loss of its VM
RELAY_WORDS, RELAY_WORDS_A_SECOND = 2000, 100.0  # a few for each channel that opens or closes
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
        """Run the session. It holds its seat from now on until it ends."""
        self._seats.add(session)
        task = asyncio.ensure_future(self._run(session))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def attend(self, session: Session, gate: GateConnection) -> None:
        """Serve the session's gate until either ends."""
        hearing = asyncio.ensure_future(hear_gate(session, gate))
        try:
            await _first(hearing, session.over)
        finally:
            hearing.cancel()
        # Not reached if the broker is stopped: the session goes on, for the next broker.
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
        session.watch(asyncio.ensure_future(follow_vm(session, self._rules, self._seats)))
        attended = asyncio.ensure_future(_require_gate(session))
        hearing = asyncio.ensure_future(hear_relay(session))
        try:
            await _first(hearing, session.over)
            session.revoke(_loss_of_relay(hearing))
            await self._end_relay(session, hearing)
        finally:
            hearing.cancel()
            loop.remove_reader(session.anchor.pidfd)
        # Not reached if the broker is stopped, either.
        session.finish()
        self._relays.forget(session.id)
        await attended  # a gate that comes back now is still told why

    async def _end_relay(self, session: Session, hearing: asyncio.Future[None]) -> None:
        """Tell the relay's process to exit, and kill it if it does not."""
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


async def hear_gate(session: Session, gate: GateConnection) -> None:
    """Returns when the gate leaves. Raises ProtocolError if it says anything else than `said`, or
    says it without end.
    """
    words = Rate(GATE_WORDS, GATE_WORDS_A_SECOND)
    while (message := await gate.receive()) is not None:
        if not words.allows(session.id):
            raise ProtocolError("it says too much")
        if text(message, "op") != "said":
            raise ProtocolError("an operation that does not belong in a session")
        session.loss_told.set()


async def hear_relay(session: Session) -> None:
    """Returns when the relay's process has ended. Raises ProtocolError for a malformed report, and
    for reports without end.
    """
    words = Rate(RELAY_WORDS, RELAY_WORDS_A_SECOND)
    while (message := await session.relay.receive()) is not None:
        if not words.allows(session.id):
            raise ProtocolError("it says too much")
        event = text(message, "event")
        if event == "closed":
            _closed(session, message)
        elif event == "usage":
            _count(session, message.get("channels"))
        elif event == "lost":
            lose_vm(session, number(message, "channel"))
        elif event == "stopping":
            stopped = SpicetunnelError("the server's relay was stopped", "connect again later")
            session.revoke(stopped)
        # Others come from a newer relay, and are for a newer broker.


def lose_vm(session: Session, channel: int) -> None:
    """The VM has closed a channel whose viewer cannot see it yet; it is `closed` when it can."""
    known = session.channels.get(channel)
    if known is not None and not known.is_lost:  # once each: what waits is bounded by the channels
        known.is_lost = True
        session.watch(asyncio.ensure_future(_announce_and_release(session, channel)))


async def _announce_and_release(session: Session, channel: int) -> None:
    await session.announce_loss()
    session.relay.release(channel)


def _closed(session: Session, message: Message) -> None:
    """Handle `closed`: the channel's end, with its final counts."""
    by, why = text(message, "by"), text(message, "why", "")
    if by not in {"viewer", "vm", "relay", "filter"}:
        raise ProtocolError("'by' is neither viewer, vm, relay nor filter")
    which = number(message, "channel")
    session.count(which, number(message, "up"), number(message, "down"))
    reason = f"closed by the {by}"
    channel = session.close_channel(which, f"{reason}: {why}" if why else reason)
    if channel is None or not channel.link.is_main:
        return
    if by == "vm":
        session.vm_lost.set()
    elif by == "filter":
        what = f"the viewer at '{session.vm_name}' was cut off: its filter met unknown bytes"
        hint = "the server's log says which; remote-viewer is known to work"
        session.tell("notice", what, hint)


def _count(session: Session, usage: object) -> None:
    """Handle `usage`: the present counts of the open channels."""
    if not isinstance(usage, dict):
        raise ProtocolError("'channels' is not an object")
    for key, counts in usage.items():
        if not (isinstance(counts, list) and len(counts) == 2):
            raise ProtocolError("'channels' does not hold pairs of counts")
        up, down = (natural(count, "channels") for count in counts)
        session.count(channel_number(key), up, down)
    session.measure()
