"""What one connection is for: the near end that viewers connect to, and the one command."""

import asyncio
import itertools
import os
import socket
import sys
from typing import cast

import asyncssh

from spice_connect.tunnel.builtin.log import Log, show
from spice_connect.tunnel.builtin.words import Wanted


async def hold(connection: asyncssh.SSHClientConnection, wanted: Wanted, log: Log) -> int | None:
    """The command's exit status; None if the connection ended before it."""
    if wanted.near:
        await _listen(connection, wanted, log)
    try:
        channel, _ = await connection.create_session(Command, wanted.command, encoding=None)
    except asyncssh.ChannelOpenError as error:
        log.say(f"channel 0: open failed: {error.reason}")
        return None
    channel.write_eof()
    await channel.wait_closed()
    status = channel.get_exit_status()
    return status if status is None or status >= 0 else 255


class Command(asyncssh.SSHClientSession[bytes]):
    """Its stdout is ours, and its stderr what we show of it."""

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            show(sys.stderr.fileno(), data.decode(errors="replace"))
            return
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]


async def _listen(connection: asyncssh.SSHClientConnection, wanted: Wanted, log: Log) -> None:
    numbers = itertools.count(1)

    def accepted() -> NearEnd:
        return NearEnd(connection, wanted.far, next(numbers), log)

    loop = asyncio.get_running_loop()
    try:
        if wanted.near.startswith("/"):
            await loop.create_unix_server(accepted, sock=_bind_private(wanted.near))
        else:
            host, _, port = wanted.near.rpartition(":")
            await loop.create_server(accepted, host, int(port))
    except OSError as error:  # what needs the tunnel will see that it is not there
        log.say(f"bind [{wanted.near}]: {error.strerror}\nCould not request local forwarding.")


def _bind_private(path: str) -> socket.socket:
    near = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        near.bind(path)
    finally:
        os.umask(before)
    return near


class NearEnd(asyncssh.SSHForwarder):
    """One connection of the viewer's; its peer is the channel to the far end."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, far: str, number: int, log: Log
    ) -> None:
        super().__init__()
        self._connection, self._far = connection, far
        self._number, self._log = number, log
        #: What came before the far end was there; None: it is there.
        self._early: bytes | None = b""
        self._early_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._log.mark(f"Connection to port -2 forwarding to {self._far} requested.")
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if self._early is None:
            super().data_received(data, datatype)
        else:
            self._early += data

    def eof_received(self) -> bool:
        if self._early is None:
            return super().eof_received()
        self._early_end = True
        return True  # stay open the other way

    async def _open(self) -> None:
        try:
            await self._connection.create_unix_connection(self._channel_end, self._far)
        except asyncssh.ChannelOpenError as error:
            self._log.say(f"channel {self._number}: open failed: {error.reason}")
            self.close()
        except asyncssh.Error:  # the whole connection is gone
            self.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        early, self._early = self._early, None
        if early:
            super().data_received(early)
        if self._early_end:
            super().eof_received()

    def _channel_end(self) -> asyncssh.SSHUNIXSession[bytes]:
        # It is one, though its class does not say so.
        return cast("asyncssh.SSHUNIXSession[bytes]", asyncssh.SSHForwarder(self))
