"""One connection, from the command line to the exit status."""

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from contextlib import suppress

import asyncssh

from spice_connect.tunnel.builtin.login import Dialog, Login, SshError, show
from spice_connect.tunnel.builtin.options import Arguments, Place, config_files, parse, uri
from spice_connect.tunnel.causes import Name

Connection = asyncssh.SSHClientConnection
Options = asyncssh.SSHClientConnectionOptions
Reader = asyncio.StreamReader | asyncssh.SSHReader[bytes]
Writer = asyncio.StreamWriter | asyncssh.SSHWriter[bytes]
SHELL = re.compile(r"[$`\\|&;<>()*?]")  # asyncssh starts a ProxyCommand without one
FIXED = {"agent_forwarding": False, "x11_forwarding": False, "request_pty": False}
TIMES = {"login_timeout": 0, "keepalive_interval": 15, "keepalive_count_max": 3}

#: The first that fits counts. sshd calls too many failures to log in a protocol error.
CAUSES: tuple[tuple[tuple[type[Exception], ...], Name], ...] = (
    ((socket.gaierror, UnicodeError), "no-such-host"),
    ((FileNotFoundError, PermissionError, ValueError), "configuration"),
    ((OSError, asyncssh.ChannelOpenError), "unreachable"),
    ((asyncssh.HostKeyNotVerifiable,), "unknown-key"),
    ((asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported), "too-old"),
    ((asyncssh.PermissionDenied, asyncssh.ProtocolError), "denied"),
)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ended as ssh is, without a traceback
    dialog = None
    try:
        arguments = parse(sys.argv[1:])
        dialog = Dialog(arguments.log, arguments.verbosity, batch="BatchMode" in arguments.options)
        sys.exit(asyncio.run(_run(arguments, dialog)))
    except SshError as error:
        if not dialog:  # there is no log yet
            sys.exit(f"ssh: {error}")
        hop = f" at {error.hop}" if error.hop else ""
        dialog.say(f"{error}\ncause: {error.cause}{hop}")
        sys.exit(255)  # as ssh(1) says that it was not the command


async def _run(arguments: Arguments, dialog: Dialog) -> int:
    connection = await _connect(arguments.place, arguments, dialog)
    dialog.mark(f"Authenticated to {arguments.place.host}")
    try:
        if arguments.forward:
            await _forward(connection, arguments.forward, dialog)
        command, _ = await connection.create_session(Command, arguments.command, encoding=None)
        command.write_eof()
        await command.wait_closed()
    except (OSError, asyncssh.Error) as error:
        raise SshError("unknown", str(error)) from error
    status = command.get_exit_status()
    return 255 if status in (None, -1) else status


class Command(asyncssh.SSHClientSession[bytes]):
    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            show(sys.stderr.fileno(), data.decode(errors="replace"))
        else:
            os.write(sys.stdout.fileno(), data)


async def _connect(
    place: Place, arguments: Arguments, dialog: Dialog, over: Connection | None = None
) -> Connection:
    """`over`: the last of the jump hosts."""
    try:
        files, is_strict = config_files(arguments.config)
        options = Options(**place._asdict(), **FIXED, **TIMES, config=files)
        if SHELL.search(" ".join(options.proxy_command or ())):
            raise SshError("configuration", "not in the built-in ssh: a shell for ProxyCommand")
        for jump in map(uri, str(options.tunnel).split(",") if options.tunnel and not over else ()):
            if jump.host == place.host:  # the ProxyJump of a `Host *`
                break
            over = await _jump(jump, arguments, dialog, over)
        login = Login(options.known_hosts, options.host_key_alias, dialog, is_strict=is_strict)
        seconds = float(arguments.options.get("ConnectTimeout", options.connect_timeout or 0))
        async with asyncio.timeout(seconds or None) as login.patience:
            return await _log_in(place.host, options, login, over)
    except (OSError, ValueError, asyncssh.Error) as error:
        raise _failure(place.host, error) from error


async def _jump(
    place: Place, arguments: Arguments, dialog: Dialog, over: Connection | None
) -> Connection:
    try:
        return await _connect(place, arguments, dialog, over)
    except SshError as error:
        error.hop = place.host
        raise


async def _log_in(host: str, options: Options, login: Login, over: Connection | None) -> Connection:
    return await asyncssh.connect(
        host,
        options=options,
        tunnel=over,
        client_factory=lambda: login,
        known_hosts=login.known_hosts,
        passphrase=login.passphrase,
        agent_path=None if options.agent_identities == [] else (),  # or it offers all of them
        connect_timeout=None,
    )


def _failure(host: str, error: Exception) -> SshError:
    text = error.reason if isinstance(error, asyncssh.Error) else str(error) or "no answer in time"
    cause: Name = next((name for kinds, name in CAUSES if isinstance(error, kinds)), "unknown")
    if f"[Errno {errno.ECONNREFUSED}]" in text:  # also where asyncio tells of several addresses
        cause = "refused"
    return SshError(cause, f"{host}: {text}")


async def _forward(connection: Connection, forward: str, dialog: Dialog) -> None:
    near, _, far = forward.rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialog.mark("Connection to port forwarding")
        try:
            far_reader, far_writer = await connection.open_unix_connection(far, encoding=None)
            with suppress(OSError, asyncssh.Error):  # one end is gone, so the other one goes
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            far_writer.close()
        except asyncssh.ChannelOpenError as error:
            dialog.say(f"{far}: {error.reason}\ncause: forwarding-refused")
        writer.close()

    host, _, port = near.rpartition(":")
    before = os.umask(0o177)
    if host:
        await asyncio.start_server(carry, host, int(port))
    else:
        await asyncio.start_unix_server(carry, near)
    os.umask(before)


async def _copy(reader: Reader, writer: Writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    main()
