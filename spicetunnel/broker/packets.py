"""A gate's connection: packets in and out of control.sock, on the event loop."""

import asyncio
import socket

from spicetunnel.broker.peers import Peer, peer_of
from spicetunnel.common import fdpass
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import Message, decode, encode


class GateConnection:
    """`peer` is the kernel's word on who connected."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.peer: Peer = peer_of(sock)

    async def receive(self) -> Message | None:
        """The next message; None at the end. Raises ProtocolError."""
        while True:
            try:
                packet, _ = fdpass.receive(self._sock)
            except BlockingIOError:
                await _ready(self._sock, for_reading=True)
            else:
                return decode(packet) if packet else None

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """Send at once, or not at all: False where the gate does not read, or is gone."""
        try:
            fdpass.send(self._sock, encode(message), fds)
        except OSError:
            return False
        return True

    async def send_in_turn(self, message: Message) -> bool:
        """Send as soon as the gate has read what was sent before; False where it is gone."""
        packet = encode(message)
        while True:
            try:
                fdpass.send(self._sock, packet)
            except BlockingIOError:
                await _ready(self._sock, for_reading=False)
            except OSError:
                return False
            else:
                return True

    def refuse(self, error: SpicetunnelError) -> None:
        self.send(
            {
                "event": "refused",
                "code": error.exit_code,
                "reason": error.reason,
                "hint": error.hint,
            }
        )

    def close(self) -> None:
        self._sock.close()


async def _ready(sock: socket.socket, *, for_reading: bool) -> None:
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
