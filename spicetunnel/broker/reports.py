"""What a session's gate and its relay tell us."""

import asyncio

from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.relays import channel_number
from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import Message, natural, number, text


async def hear_gate(session: Session, gate: GateConnection) -> None:
    """Until the gate leaves. Raises ProtocolError for what does not belong here."""
    while (message := await gate.receive()) is not None:
        if text(message, "op") != "said":
            raise ProtocolError("an operation that does not belong in a session")
        session.loss_told.set()


async def hear_relay(session: Session) -> None:
    """Until the relay's process has ended. Raises ProtocolError for what is no report."""
    while (message := await session.relay.receive()) is not None:
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
    """A channel is over, and this is how much it moved."""
    by = text(message, "by")
    if by not in {"viewer", "vm", "relay"}:
        raise ProtocolError("'by' is neither viewer, vm nor relay")
    channel_number = number(message, "channel")
    session.count(channel_number, number(message, "up"), number(message, "down"))
    channel = session.close_channel(channel_number, f"closed by the {by}")
    if channel is not None and channel.link.is_main and by == "vm":
        session.vm_lost.set()


def _count(session: Session, usage: object) -> None:
    """The present counts of the open channels."""
    if not isinstance(usage, dict):
        raise ProtocolError("'channels' is not an object")
    for key, counts in usage.items():
        if not (isinstance(counts, list) and len(counts) == 2):
            raise ProtocolError("'channels' does not hold pairs of counts")
        up, down = (natural(count, "channels") for count in counts)
        session.count(channel_number(key), up, down)
    session.measure()
