"""The two sockets in the run directory, and a task for each connection at them."""

import asyncio
import os
import socket
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.bans import Bans
from spicetunnel.broker.bounds import Rate
from spicetunnel.broker.connection import ready
from spicetunnel.broker.peers import Peer, peer_of
from spicetunnel.common.errors import os_reason
from spicetunnel.common.files import hold_directory, listen_at

_BACKLOG = 4096  # the kernel's own limit, net.core.somaxconn: sshd's connect does not wait for room
_A_TURN = 32  # connections accepted before the other tasks have theirs
_OUT_OF_DESCRIPTORS_PAUSE = 0.2  # seconds

FLOOD, FLOOD_A_SECOND = 1000, 500.0  # connections of one uid at one socket

#: Whether several people share the account of this uid.
IsShared = Callable[[int], bool]
#: Who serves the connection of a peer; None if nobody does. Also called in a flood: it takes
#: microseconds, and what it asks of the system is bounded.
Door = Callable[[socket.socket, Peer], Coroutine[None, None, None] | None]


class RunDirectory:
    """The directory with the sockets, held by one broker at a time."""

    def __init__(self, path: Path) -> None:
        """Raises SpicetunnelError if others can write to the directory, or another broker runs."""
        self.path = path
        self._lock = hold_directory(path)
        self._given: dict[str, socket.socket] = {}

    def give(self, sockets: list[socket.socket]) -> None:
        """Use these sockets, on which the service manager listens already."""
        self._given = {Path(str(sock.getsockname())).name: sock for sock in sockets}

    def listen(self, name: str, kind: socket.SocketKind) -> socket.socket:
        """A listening socket that every local user may connect to; requests are checked later."""
        path = self.path / name
        given = self._given.get(name)
        if given is not None and given.type == kind:
            given.listen(_BACKLOG)
            given.setblocking(False)
            return given
        old = os.umask(0o111)
        try:
            return listen_at(path, kind | socket.SOCK_NONBLOCK, _BACKLOG)
        finally:
            os.umask(old)


class Listener:
    """Accepts at one socket; each connection gets a task, and is closed when that ends."""

    def __init__(self, sock: socket.socket, door: Door, is_shared: IsShared, audit: Audit) -> None:
        self._sock = sock
        self._door = door
        self._is_shared = is_shared
        self._audit = audit
        self._pace = Rate(FLOOD, FLOOD_A_SECOND)
        self._bans = Bans(Path(str(sock.getsockname())), audit)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            try:
                if self._accept_some():
                    await asyncio.sleep(0)
                else:
                    await ready(self._sock, for_reading=True)
            except OSError as error:
                self._audit.write("fault", reason=f"cannot accept: {os_reason(error)}")
                await asyncio.sleep(_OUT_OF_DESCRIPTORS_PAUSE)

    def _accept_some(self) -> bool:
        """Accept what waits, but not more than a turn's worth. False: nothing waits any more."""
        for _ in range(_A_TURN):
            try:
                connection, _ = self._sock.accept()
            except BlockingIOError:
                return False
            self._admit(connection)
        return True

    def _admit(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        work = self._door(connection, peer) if self._keeps_pace(peer.uid) else None
        if work is None:
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.ensure_future(self._serve(work, connection, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keeps_pace(self, uid: int) -> bool:
        """Whether this user does not flood us. Who does is shut out; but never an account that
        several people share: its processes are sshd's, whose pace we stand.
        """
        if self._pace.allows(uid):
            return True
        if uid not in {0, os.geteuid()} and not self._is_shared(uid):
            self._bans.add(uid)
        return False

    async def _serve(
        self, work: Coroutine[None, None, None], connection: socket.socket, peer: Peer
    ) -> None:
        try:
            await work
        except Exception as error:  # a fault of ours: close this connection, go on with the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename}:{where.lineno}"
            self._audit.write("fault", uid=peer.uid, reason=repr(error), place=place)
        finally:
            connection.close()
