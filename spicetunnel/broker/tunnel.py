"""Turns each connection at tunnel.sock into a channel of its session, or closes it."""

import asyncio
import socket
from collections.abc import Coroutine

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.bounds import AtOnce, Rate
from spicetunnel.broker.peers import Peer
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import connect
from spicetunnel.common.errors import NotRunningError, SpicetunnelError
from spicetunnel.spice import link as spice
from spicetunnel.spice.link import Link, LinkError

LINK_TIMEOUT = 10.0  # seconds for the whole link message
UNLINKED = 16  # connections of a session that have not sent it yet; a viewer makes some at once
CHANNELS, CHANNELS_A_SECOND = 1000, 50.0  # opened in a session; a viewer opens ten
STRAYS, STRAYS_A_SECOND = 50, 10.0  # processes of a uid whose parents are looked up


class Tunnel:
    def __init__(self, rules: Rules, seats: Seats, audit: Audit) -> None:
        self._rules = rules
        self._seats = seats
        self._audit = audit
        self._unlinked = AtOnce()
        self._channels = Rate(CHANNELS, CHANNELS_A_SECOND)
        self._strays = Rate(STRAYS, STRAYS_A_SECOND)

    def door(self, viewer: socket.socket, peer: Peer) -> Coroutine[None, None, None] | None:
        """Serve the connection, if it belongs to a session that does not make too many."""
        session = self._session_of(peer)
        if session is None:
            self._refuse(peer, "no session belongs to this connection")
        elif not self._channels.allows(session.id):
            self._refuse(peer, f"more than {CHANNELS_A_SECOND:g} channels a second in one session")
        elif not self._unlinked.enter(session.id, UNLINKED):
            self._refuse(peer, f"{UNLINKED} connections of one session that say nothing")
        else:
            return self._serve(session, viewer)
        return None

    def _session_of(self, peer: Peer) -> Session | None:
        """The session on whose SSH connection the peer connected.

        In a flood, at the cost of two look-ups in tables: sshd's own process connects for a client.
        Only on the host itself it is a process below, which takes looks at /proc.
        """
        direct = self._seats.on(peer.pid)
        if direct is not None and direct.asker.uid == peer.uid:
            return direct
        if self._seats.has_session(peer.uid) and self._strays.allows(peer.uid):
            return self._seats.of(peer)
        return None

    def _refuse(self, peer: Peer, reason: str) -> None:
        self._audit.repeated("channel", reason, decision="deny", uid=peer.uid, pid=peer.pid)

    async def _serve(self, session: Session, viewer: socket.socket) -> None:
        """One forwarded connection: it is handed to the relay, or closed."""
        try:
            try:
                link, raw = await read_link(viewer)
            finally:
                self._unlinked.leave(session.id)
            await self._open(session, viewer, link, raw)
        except LinkError as error:
            session.log_refusal("channel", error.reason)
            _answer(viewer, error.code)

    async def _open(self, session: Session, viewer: socket.socket, link: Link, raw: bytes) -> None:
        """Decide, connect to the VM, hand over. Raises LinkError."""
        await session.decided.wait()
        limit = self._rules.current().limits.channels_per_session
        session.admit(link, limit)
        vm = await self._connect(session)
        try:
            session.admit(link, limit)  # again: connecting took its time
            _pass_on(vm, raw)
        except LinkError:
            vm.close()
            raise
        if not session.hand_over(link, viewer, vm):  # which closes the VM's end
            raise LinkError("the relay does not take the channel", spice.ERROR)

    async def _connect(self, session: Session) -> socket.socket:
        """The VM's end. Raises LinkError."""
        try:
            vm, place = await connect(session.vm_name, session.place.socket)
        except NotRunningError as error:
            if session.keep:
                await session.announce_loss()  # before our answer ends the viewer
            session.vm_lost.set()
            raise LinkError(error.reason, spice.CHANNEL_NOT_AVAILABLE) from None
        except SpicetunnelError as error:
            raise LinkError(error.reason, spice.CHANNEL_NOT_AVAILABLE) from None
        if place.born != session.place.born:  # it has restarted, or its file is another one
            try:
                self._seats.require_own_socket(session.vm_name, place)
            except SpicetunnelError as error:
                vm.close()
                raise LinkError(error.reason, spice.CHANNEL_NOT_AVAILABLE) from None
            session.place = place
        return vm


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
        await asyncio.sleep(0)  # a turn for the others, also where single bytes never run out
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
