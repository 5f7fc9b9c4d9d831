"""Connections that exchange packets: those at control.sock, and those to the relay."""

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence

from spicetunnel.broker.peers import Peer, peer_of
from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import MAX_PACKET, Message, decode, encode

ROWS_A_PACKET = 100
_ROOM = MAX_PACKET - 1024  # bytes for rows in a packet, beside what is around them


class Connection:
    """Packets in and out, on the event loop. `peer`: the process at the other end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.peer: Peer = peer_of(sock)

    async def receive(self) -> Message | None:
        """The next message, which brings no descriptors; None at the end. Raises ProtocolError."""
        message, _ = await self.receive_with(0)
        return message

    async def receive_with(self, max_fds: int) -> tuple[Message | None, list[int]]:
        """The next message and the descriptors it brings, the caller's to close.

        Raises ProtocolError, or OSError where the connection broke.
        """
        while True:
            # A turn for the others, also where a peer's packets never run out. Before a packet is
            # taken: a wait that is cancelled loses none.
            await asyncio.sleep(0)
            try:
                packet, fds = fdpass.receive(self._sock, max_fds)
            except BlockingIOError:
                await ready(self._sock, for_reading=True)
                continue
            try:
                return (decode(packet) if packet else None), fds
            except BaseException:
                fdpass.close_all(fds)
                raise

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """Send without waiting; False if the peer does not read, or is gone."""
        try:
            fdpass.send(self._sock, encode(message), fds)
        except OSError:
            return False
        return True

    async def send_in_turn(self, message: Message) -> bool:
        """Send, waiting for the peer to read if need be; False if it is gone."""
        packet = encode(message)
        while True:
            try:
                fdpass.send(self._sock, packet)
            except BlockingIOError:
                await ready(self._sock, for_reading=False)
            except OSError:
                return False
            else:
                return True

    def close(self) -> None:
        self._sock.close()


class GateConnection(Connection):
    """The connection of a gate, or of the admin's command."""

    async def leaves_within(self, seconds: float) -> bool:
        """Wait `seconds` for the gate to leave; whether it has.

        Raises ProtocolError if it sends anything.
        """
        try:
            async with asyncio.timeout(seconds):
                message = await self.receive()
        except TimeoutError:
            return False
        if message is not None:
            raise ProtocolError("a gate that waits has nothing to say")
        return True

    async def send_rows(self, event: str, rows: Sequence[Message]) -> None:
        """Send a list under the name of its event, in as many packets as needed."""
        sent = 0
        for part in _parts(rows):
            await asyncio.sleep(0)
            sent += len(part)
            message: Message = {"event": event, event: part, "more": sent < len(rows)}
            if not await self.send_in_turn(message):
                return

    def say_end(self, event: str, error: SpicetunnelError) -> bool:
        """`refused` or `end`, with the reason and the exit code."""
        why: Message = {"code": error.exit_code, "reason": error.reason, "hint": error.hint}
        return self.send({"event": event, **why, **with_times(error.times)})


def with_times(times: Mapping[str, str]) -> Message:
    """The key `times` of a message; none if there are none."""
    return {"times": dict(times)} if times else {}


def _parts(rows: Sequence[Message]) -> Iterator[list[Message]]:
    """The rows in as few parts as possible, each small enough for a packet; at least one part.

    A row that fits in no packet is left out.
    """
    part: list[Message] = []
    room = _ROOM
    for row in rows:
        try:
            size = len(encode(row)) + 1
        except ProtocolError:
            continue
        if size > _ROOM:
            continue
        if part and (size > room or len(part) == ROWS_A_PACKET):
            yield part
            part, room = [], _ROOM
        part.append(row)
        room -= size
    yield part


async def ready(sock: socket.socket, *, for_reading: bool) -> None:
    """Wait until the socket can be read or written, without reading or writing."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (
        (loop.add_reader, loop.remove_reader)
        if for_reading
        else (loop.add_writer, loop.remove_writer)
    )
    add(sock, _wake, ready)
    try:
        await ready
    finally:
        remove(sock)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
