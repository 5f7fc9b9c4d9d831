"""What a gate reports in a session: byte counts, and channels that are over."""

from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import Message, natural, number, text


async def listen(session: Session) -> None:
    """Until the gate leaves. Raises ProtocolError for what does not belong here."""
    while (message := await session.gate.receive()) is not None:
        operation = text(message, "op")
        if operation == "closed":
            closed(session, message)
        elif operation == "usage":
            count(session, message.get("channels"))
        else:
            raise ProtocolError("an operation that does not belong in a session")


def closed(session: Session, message: Message) -> None:
    """A channel is over, and this is how much it moved."""
    by = text(message, "by")
    if by not in {"viewer", "vm", "relay"}:
        raise ProtocolError("'by' is neither viewer, vm nor relay")
    channel_number = number(message, "channel")
    session.count(channel_number, number(message, "up"), number(message, "down"))
    channel = session.close_channel(channel_number, f"closed by the {by}")
    if channel is not None and channel.link.is_main and by == "vm":
        session.vm_lost.set()


def count(session: Session, usage: object) -> None:
    """The present counts of the open channels."""
    if not isinstance(usage, dict):
        raise ProtocolError("'channels' is not an object")
    for key, counts in usage.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ProtocolError("'channels' has a key that is no channel")
        if not (isinstance(counts, list) and len(counts) == 2):
            raise ProtocolError("'channels' does not hold pairs of counts")
        session.count(int(key), natural(counts[0], "channels"), natural(counts[1], "channels"))
    session.measure()
