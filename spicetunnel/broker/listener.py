"""The two sockets in the run directory, and a task for each connection at them."""

import asyncio
import os
import socket
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.peers import peer_of
from spicetunnel.common.errors import os_reason
from spicetunnel.common.files import hold_directory, listen_at

MAX_PER_USER = 512  # connections of one uid at one socket; a shared account has many people
_BACKLOG = 256
_OUT_OF_DESCRIPTORS_PAUSE = 0.2  # seconds

Handler = Callable[[socket.socket], Awaitable[None]]


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
            given.setblocking(False)
            return given
        old = os.umask(0o111)
        try:
            return listen_at(path, kind | socket.SOCK_NONBLOCK, _BACKLOG)
        finally:
            os.umask(old)


class Listener:
    """Accepts at one socket; each connection gets a task, and is closed when that ends."""

    def __init__(self, sock: socket.socket, handler: Handler, audit: Audit) -> None:
        self._sock = sock
        self._handler = handler
        self._audit = audit
        self._per_user: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                self._audit.write("fault", reason=f"cannot accept: {os_reason(error)}")
                await asyncio.sleep(_OUT_OF_DESCRIPTORS_PAUSE)
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        uid = peer_of(connection).uid
        if self._per_user[uid] >= MAX_PER_USER:
            self._audit.write("refused", uid=uid, reason=f"over {MAX_PER_USER} connections at once")
            connection.close()
            return
        self._per_user[uid] += 1
        self._start(self._serve(connection, uid))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            await self._handler(connection)
        except Exception as error:  # a fault of ours: close this connection, go on with the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._audit.write(
                "fault", uid=uid, reason=repr(error), place=f"{where.filename}:{where.lineno}"
            )
        finally:
            connection.close()
            self._per_user[uid] -= 1
            self._per_user += Counter()  # forget the users with none
