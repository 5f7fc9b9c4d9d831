"""The broker's side of the relay: one process a session moves its bytes. docs/protocol.md,
section 4.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from spicetunnel.broker.connection import Connection
from spicetunnel.common.errors import ProtocolError, SpicetunnelError, os_reason
from spicetunnel.common.fdpass import close_all
from spicetunnel.common.processes import hold, start_time
from spicetunnel.common.protocol import (
    RELAY_SOCKET,
    SESSIONS,
    VERSION,
    Message,
    flag,
    natural,
    number,
    text,
)

TIMEOUT = 5.0  # seconds for a relay to answer; ours takes milliseconds
Purposes = frozenset[str]  # keys of spice.agent.PURPOSES
_MAX_FDS = 253  # the kernel's SCM_MAX_FD


class RelayError(SpicetunnelError):
    """The relay does not answer, or answers nonsense."""


class Relay:
    """The process of one session. `pid` and `started` together identify it.

    `filters`: whether it can filter a channel. One of an earlier version cannot, and would not say.
    """

    def __init__(self, connection: Connection, pid: int, started: int, *, filters: bool) -> None:
        self._connection = connection
        self.pid = pid
        self.started = started
        self.filters = filters

    def take(
        self,
        channel: int,
        viewer: socket.socket,
        vm: socket.socket,
        *,
        hold: bool,
        rules: Purposes | None = None,
    ) -> bool:
        """Give it both ends of a channel; False if that fails.

        `hold`: the viewer does not see that its VM has closed before `release`. `rules`: what the
        channel, a main channel, may carry between viewer and agent; None: everything, unread.
        """
        message: Message = {"op": "channel", "channel": channel, "hold": hold}
        if rules is not None:
            message["filter"] = sorted(rules)
        return self._connection.send(message, (viewer.fileno(), vm.fileno()))

    def release(self, channel: int) -> None:
        """Let the viewer see that its VM has closed."""
        self._connection.send({"op": "release", "channel": channel})

    def end(self) -> None:
        """Tell it to close everything, report the last counts, and exit."""
        self._connection.send({"op": "end"})

    async def receive(self) -> Message | None:
        """Its next report; None if it has ended. Raises ProtocolError."""
        try:
            return await self._connection.receive()
        except OSError:
            return None

    def close(self) -> None:
        self._connection.close()


class KeptChannel(NamedTuple):
    """Bytes from viewer to VM and back, whether the VM has closed it, our duplicate of its end, and
    the rules of its filter, if it has one.
    """

    up: int
    down: int
    is_lost: bool
    vm: socket.socket
    rules: Purposes | None


class Kept:
    """What a session's process kept through a broker's death: its channels, by number."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.channels: dict[int, KeptChannel] = {}

    def close(self) -> None:
        self.relay.close()
        for channel in self.channels.values():
            channel.vm.close()


class Relays:
    """Where the relay listens: `relay.sock` for new sessions, and a socket for each that runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sessions = directory / SESSIONS

    async def begin(self, session_id: str, grace: int) -> Relay:
        """Start the process of a new session. Raises RelayError."""
        with _failures_told():
            connection = self._connect(self._directory / RELAY_SOCKET)
            with _closed_on_failure(connection):
                about: Message = {"session": session_id, "grace": grace}
                connection.send({"v": VERSION, "op": "begin", **about})
                try:
                    hello = await _hello(connection, session_id)
                    pid, filters = number(hello, "pid"), flag(hello, "filters")
                    return Relay(connection, pid, start_time(pid), filters=filters)
                except BaseException:
                    self.forget(session_id)  # it may have listened before it failed
                    raise

    async def try_out(self, session_id: str) -> None:
        """Begin a session and end it. Raises RelayError if sessions cannot begin."""
        relay = await self.begin(session_id, grace=0)
        relay.end()
        relay.close()
        self.forget(session_id)

    async def find(self, session_id: str, pid: int, started: int, most: int) -> Kept:
        """The process of a session that a broker before us began, with what it kept: `most`
        channels, or fewer.

        Raises RelayError where it has gone, or is not the one on record.
        """
        with _failures_told():
            connection = self._connect(self._sessions / session_id)
            kept = Kept(Relay(connection, pid, started, filters=False))
            with _closed_on_failure(kept):
                if connection.peer.pid != pid or start_time(pid) != started:
                    raise RelayError("another process listens for the session")
                connection.send({"v": VERSION, "op": "attach"})
                hello = await _hello(connection, session_id)
                kept.relay.filters = flag(hello, "filters")
                expected = number(hello, "channels")
                if expected > most:
                    raise ProtocolError("it kept more channels than it was given")
                async with asyncio.timeout(TIMEOUT):
                    while len(kept.channels) < expected:
                        kept.channels.update(await _receive_kept(connection))
                return kept

    async def kill(self, pid: int, started: int) -> None:
        """End that very process of a session, if it still runs. Raises RelayError."""
        with _failures_told():
            try:
                pidfd = hold(pid, started)
            except (ProcessLookupError, FileNotFoundError):
                return
            try:
                await self._kill(pidfd)
            finally:
                os.close(pidfd)

    async def _kill(self, pidfd: int) -> None:
        """Raises RelayError, OSError, ProtocolError or TimeoutError."""
        with closing(self._connect(self._directory / RELAY_SOCKET)) as connection:
            connection.send({"v": VERSION, "op": "kill"}, (pidfd,))
            async with asyncio.timeout(TIMEOUT):
                if await connection.receive() is None:
                    raise RelayError("the server's relay could not end a session's process")

    def names(self) -> list[str]:
        """The sessions whose sockets are there. Raises RelayError."""
        with _failures_told():
            try:
                return os.listdir(self._sessions)
            except FileNotFoundError:
                return []  # the relay has never run

    async def end_stray(self, session_id: str) -> None:
        """End a session that nobody knows of, and remove its socket. Raises RelayError."""
        try:
            connection = self._connect(self._sessions / session_id)
        except (OSError, RelayError):
            pass  # it has ended
        else:
            with closing(connection):
                await self._end(connection)
        self.forget(session_id)

    async def _end(self, connection: Connection) -> None:
        """Tell the process to exit, and kill it if it does not. Raises RelayError."""
        connection.send({"v": VERSION, "op": "attach"})
        connection.send({"op": "end"})
        try:
            async with asyncio.timeout(TIMEOUT):
                while (answer := await connection.receive_with(_MAX_FDS))[0] is not None:
                    close_all(answer[1])
        except (OSError, ProtocolError):
            with _failures_told():
                await self.kill(connection.peer.pid, start_time(connection.peer.pid))

    def forget(self, session_id: str) -> None:
        """Remove the socket of a session that has ended: its sandboxed process cannot."""
        try:
            os.unlink(self._sessions / session_id)
        except OSError:
            pass  # it never began

    def _connect(self, path: Path) -> Connection:
        """Raises OSError, or RelayError if somebody else than the relay listens there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with _closed_on_failure(sock):
            sock.connect(str(path))
            connection = Connection(sock)
            # The directory's owner is the relay's user. relay.sock may be the service manager's.
            if connection.peer.uid not in {0, self._directory.stat().st_uid}:
                raise RelayError("the relay's socket is somebody else's")
            return connection


class _Closable(Protocol):
    def close(self) -> None: ...


@contextmanager
def _closed_on_failure(resource: _Closable) -> Iterator[None]:
    try:
        yield
    except BaseException:
        resource.close()
        raise


@contextmanager
def _failures_told() -> Iterator[None]:
    """Each failure of a relay as a RelayError, in words for the person and the log."""
    try:
        yield
    except TimeoutError:
        raise RelayError("the server's relay does not answer", "try again") from None
    except ProtocolError as error:
        raise RelayError(f"the server's relay is not understood: {error.reason}") from None
    except OSError as error:
        raise RelayError(
            f"the server's relay does not answer ({os_reason(error)})",
            "tell the admin of this server that spicetunnel-relay is not running",
        ) from None


async def _hello(connection: Connection, session_id: str) -> Message:
    """Its first message. Raises RelayError, ProtocolError, OSError or TimeoutError."""
    async with asyncio.timeout(TIMEOUT):
        hello = await connection.receive()
    if hello is None:
        raise RelayError("the server's relay has no process for a session", "try again")
    if number(hello, "v") != VERSION or text(hello, "session") != session_id:
        raise ProtocolError("it is of another version")
    return hello


async def _receive_kept(connection: Connection) -> dict[int, KeptChannel]:
    """One packet of channels. Raises ProtocolError."""
    message, fds = await connection.receive_with(_MAX_FDS)
    sockets: list[socket.socket] = []
    try:
        for fd in fds:
            sockets.append(socket.socket(fileno=fd))  # noqa: PERF401 - one of them may be none
        return _kept(message or {}, sockets)
    except (OSError, ValueError, TypeError, ProtocolError):
        for each in sockets:
            each.close()
        close_all(fds[len(sockets) :])
        raise ProtocolError("channels and descriptors do not match") from None


def _kept(message: Message, sockets: list[socket.socket]) -> dict[int, KeptChannel]:
    """Raises ValueError, TypeError or ProtocolError for what is no such message."""
    part = message.get("channels")
    filters = message.get("filters", {})
    if not isinstance(part, dict) or not part or not isinstance(filters, dict):
        raise ValueError
    found = {}
    for (key, (up, down, is_lost)), vm in zip(part.items(), sockets, strict=True):
        counts = natural(up, "channels"), natural(down, "channels")
        if not isinstance(is_lost, bool):
            raise ProtocolError("'lost' is not true or false")
        rules = frozenset(map(str, filters[key])) if key in filters else None
        found[channel_number(key)] = KeptChannel(*counts, is_lost, vm, rules)
    if len(found) != len(sockets):
        raise ValueError
    return found


def channel_number(key: str) -> int:
    """A channel's number, in a relay's packet. Raises ProtocolError."""
    if not (key.isascii() and key.isdecimal() and len(key) < 10):
        raise ProtocolError("'channels' has a key that is no channel")
    return int(key)
