"""A session from its opening to its end, whoever ends it."""

import asyncio
from typing import Any

from spicetunnel.broker.dial import is_running
from spicetunnel.broker.people import identify
from spicetunnel.broker.sessions import Session, SessionTable
from spicetunnel.common.errors import (
    NotPermittedError,
    NotRunningError,
    ProtocolError,
    SpicetunnelError,
)
from spicetunnel.common.protocol import Message, natural, number, text
from spicetunnel.policy.decide import Identity, decide
from spicetunnel.policy.vmmap import VmMap

LAST_WORD = 1.0  # seconds for a gate's last byte counts, after the cut
VM_CHECKS = (0.0, 0.3, 1.0)  # seconds: a dying QEMU may close its channels before its socket


async def hold(session: Session, sessions: SessionTable) -> None:
    """Serve the session until its gate, its SSH connection or the server ends it."""
    loop = asyncio.get_running_loop()
    loop.add_reader(session.anchor.pidfd, _connection_lost, session)
    listening = asyncio.ensure_future(_listen(session))
    either: set[asyncio.Future[Any]] = {listening, session.over}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({listening}, timeout=LAST_WORD)
    finally:
        listening.cancel()
        loop.remove_reader(session.anchor.pidfd)
        sessions.remove(session)
        session.finish(_why(listening))


async def recheck(sessions: SessionTable, vm_map: VmMap) -> None:
    """Decide every live session anew by `vm_map`, and end those it does not allow."""
    for session in sessions:
        try:
            person = await identify(session.person.uid)
            _require_allowed(session, person, vm_map)
        except SpicetunnelError as error:
            session.revoke(error)


def _require_allowed(session: Session, person: Identity, vm_map: VmMap) -> None:
    name = session.vm_name
    if not decide(vm_map, person, name).allow:
        raise NotPermittedError(f"you may no longer use '{name}'")
    if vm_map.vms[name].socket != session.vm_socket:
        raise NotRunningError(f"'{name}' has moved", "connect again")


def _connection_lost(session: Session) -> None:
    asyncio.get_running_loop().remove_reader(session.anchor.pidfd)
    session.revoke(SpicetunnelError("the SSH connection is gone"))


async def _listen(session: Session) -> None:
    while (message := await session.gate.receive()) is not None:
        operation = text(message, "op")
        if operation == "closed":
            await _closed(session, message)
        elif operation == "usage":
            _count(session, message)
        else:
            raise ProtocolError("an operation that does not belong in a session")


async def _closed(session: Session, message: Message) -> None:
    by = text(message, "by")
    if by not in {"viewer", "vm", "relay"}:
        raise ProtocolError("'by' is neither viewer, vm nor relay")
    channel_number = number(message, "channel")
    session.count(channel_number, number(message, "up"), number(message, "down"))
    channel = session.close_channel(channel_number, f"closed by the {by}")
    if channel is not None and channel.link.is_main and by == "vm":
        session.watch(asyncio.ensure_future(_end_if_vm_stopped(session)))


async def _end_if_vm_stopped(session: Session) -> None:
    for pause in VM_CHECKS:
        await asyncio.sleep(pause)
        if not is_running(session.vm_socket):
            name = session.vm_name
            session.revoke(NotRunningError(f"'{name}' has stopped", "connect again when it runs"))
            return


def _count(session: Session, message: Message) -> None:
    usage = message.get("channels")
    if not isinstance(usage, dict):
        raise ProtocolError("'channels' is not an object")
    for key, counts in usage.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ProtocolError("'channels' has a key that is no channel")
        if not (isinstance(counts, list) and len(counts) == 2):
            raise ProtocolError("'channels' does not hold pairs of counts")
        session.count(int(key), natural(counts[0], "channels"), natural(counts[1], "channels"))


def _why(listening: asyncio.Future[None]) -> str:
    """Why the gate's side ended, for the log."""
    if not listening.done() or listening.cancelled():
        return "ended"
    error = listening.exception()
    return f"dropped: {error}" if error else "the client left"
