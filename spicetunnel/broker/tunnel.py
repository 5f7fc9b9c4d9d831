"""Turns each connection at tunnel.sock into a channel of its session, or closes it."""

import asyncio
import socket

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.peers import Peer, peer_of
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import connect
from spicetunnel.common.errors import NotRunningError, SpicetunnelError
from spicetunnel.spice import link as spice
from spicetunnel.spice.link import Link, LinkError

LINK_TIMEOUT = 10.0  # seconds for the whole link message


class Tunnel:
    def __init__(self, rules: Rules, seats: Seats, audit: Audit) -> None:
        self._rules = rules
        self._seats = seats
        self._audit = audit

    async def serve(self, viewer: socket.socket) -> None:
        """One forwarded connection: it is handed to the relay, or closed."""
        peer = peer_of(viewer)
        session = self._seats.of(peer)
        if session is None:
            self._log_stray(peer)
            return
        try:
            await self._open(session, viewer)
        except LinkError as error:
            session.log("channel", decision="deny", reason=error.reason)
            _answer(viewer, error.code)

    async def _open(self, session: Session, viewer: socket.socket) -> None:
        """Read the link, decide, connect to the VM, hand over. Raises LinkError."""
        link, raw = await read_link(viewer)
        await session.decided.wait()
        limit = self._rules.current().limits.channels_per_session
        session.admit(link, limit)
        vm = await _connect(session)
        try:
            session.admit(link, limit)  # again: connecting took its time
            _pass_on(vm, raw)
        except LinkError:
            vm.close()
            raise
        if not session.hand_over(link, viewer, vm):  # which closes the VM's end
            raise LinkError("the relay does not take the channel", spice.ERROR)

    def _log_stray(self, peer: Peer) -> None:
        self._audit.write(
            "channel",
            decision="deny",
            uid=peer.uid,
            pid=peer.pid,
            reason="no session belongs to this connection",
        )


async def _connect(session: Session) -> socket.socket:
    """The VM's end. Raises LinkError."""
    try:
        return await connect(session.vm_name, session.place.socket)
    except NotRunningError as error:
        if session.keep:
            await session.announce_loss()  # before our answer ends the viewer
        session.vm_lost.set()
        raise LinkError(error.reason, spice.CHANNEL_NOT_AVAILABLE) from None
    except SpicetunnelError as error:
        raise LinkError(error.reason, spice.CHANNEL_NOT_AVAILABLE) from None


def _pass_on(vm: socket.socket, raw: bytes) -> None:
    """Give the VM the link message. It fits: the buffer of a new socket is empty."""
    try:
        sent = vm.send(raw, socket.MSG_NOSIGNAL)
    except OSError:
        sent = 0
    if sent != len(raw):
        raise LinkError("the VM closed the connection", spice.ERROR)


async def read_link(viewer: socket.socket) -> tuple[Link, bytes]:
    """The link message, parsed and as bytes. Reads not one byte more. Raises LinkError."""
    try:
        async with asyncio.timeout(LINK_TIMEOUT):
            header = await _read_exactly(viewer, spice.HEADER_SIZE)
            message = await _read_exactly(viewer, spice.message_size(header))
    except TimeoutError:
        raise LinkError(f"no link message within {LINK_TIMEOUT:g} s", spice.ERROR) from None
    return spice.parse_message(message), header + message


async def _read_exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        try:
            part = await loop.sock_recv(sock, size - len(data))
        except ConnectionError:
            part = b""
        if not part:
            raise LinkError("the connection ended within the link message", spice.ERROR)
        data += part
    return data


def _answer(viewer: socket.socket, code: int) -> None:
    """Refuse in SPICE's own terms, so that the viewer can tell why."""
    try:
        viewer.send(spice.refusal(code), socket.MSG_NOSIGNAL)
    except OSError:
        pass  # it has left
