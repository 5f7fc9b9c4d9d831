"""The way to a host: straight, through a ProxyCommand, or over the hosts of a ProxyJump."""

import asyncio
import getpass
import os
import socket
import subprocess

import asyncssh

from spice_connect.tunnel.builtin import settings
from spice_connect.tunnel.builtin.dialog import Dialog
from spice_connect.tunnel.builtin.knownhost import SSH_PORT, KnownHost
from spice_connect.tunnel.builtin.log import SshError
from spice_connect.tunnel.builtin.login import Login
from spice_connect.tunnel.builtin.words import Place, Wanted, jumps

Connection = asyncssh.SSHClientConnection


class Target:
    """A host that we log in to, with all that the configuration says of it."""

    def __init__(self, place: Place, files: list[str]) -> None:
        self.place = place
        self.settings = settings.read(files, place)
        self.host = self.settings.text("Hostname", place.host)
        self.port = self.settings.number("Port", SSH_PORT)
        self.user = self.settings.text("User", getpass.getuser())

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class Reach:
    def __init__(self, wanted: Wanted, dialog: Dialog) -> None:
        self._numbers, self._dialog = wanted.numbers, dialog
        self._files = settings.files(wanted.config)

    async def connect(self, place: Place) -> Connection:
        target = Target(place, self._files)
        self._dialog.batch |= target.settings.get("BatchMode") is True
        return await self._to(target, ())

    async def _to(
        self, target: Target, passed: tuple[str, ...], over: Connection | None = None
    ) -> Connection:
        """`passed`: on whose behalf; none of them is jumped over again."""
        over = over or await self._over_jumps(target, (*passed, target.place.host))
        if over:
            return await self._log_in(target, None, over)
        command = target.settings.text("ProxyCommand", "")
        sock = _start_proxy(command) if command else await self._dial(target)
        return await self._log_in(target, sock, None)

    async def _over_jumps(self, target: Target, passed: tuple[str, ...]) -> Connection | None:
        over = None
        for place in jumps(target.settings.text("ProxyJump", "")):
            if place.host in passed:  # a `Host *` with a ProxyJump holds for the jump as well
                return over
            over = await self._to(Target(place, self._files), passed, over)
        return over

    async def _dial(self, target: Target) -> socket.socket:
        """One address after another, each with its time and its failure, as ssh does."""
        loop = asyncio.get_running_loop()
        family = target.settings.number("AddressFamily", socket.AF_UNSPEC)
        try:
            found = await loop.getaddrinfo(
                target.host, target.port, family=family, type=socket.SOCK_STREAM
            )
        except (socket.gaierror, UnicodeError) as error:
            said = getattr(error, "strerror", None) or "Name or service not known"
            raise SshError(f"ssh: Could not resolve hostname {target.host}: {said}") from error
        for address_family, *_, address in found:
            sock = socket.socket(address_family, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await asyncio.wait_for(loop.sock_connect(sock, address), self._patience(target))
                return sock
            except OSError as error:  # a TimeoutError is one
                sock.close()
                said = os.strerror(error.errno) if error.errno else "Connection timed out"
                self._dialog.say(f"ssh: connect to host {target}: {said}")
        raise SshError("")  # each address has had its line

    def _patience(self, target: Target) -> int | None:
        own = target.settings.number("ConnectTimeout", 0)
        return self._numbers.get("ConnectTimeout", own) or None

    async def _log_in(
        self, target: Target, sock: socket.socket | None, over: Connection | None
    ) -> Connection:
        known = KnownHost(target.settings, target.host, target.port, self._dialog)
        login = Login(f"{target.user}@{target.host}", known, target.settings, self._dialog)
        login.on_connection = Watchdog(self._patience(target), target, self._dialog)
        try:
            return await self._handshake(target, sock, over, login)
        except asyncssh.DisconnectError as error:
            raise SshError(login.explain(error, str(target))) from error
        except asyncssh.ChannelOpenError as error:  # the jump's
            raise SshError(f"connect to host {target}: open failed: {error.reason}") from error
        except (OSError, ValueError) as error:
            raise SshError(f"{target}: {error}") from error

    async def _handshake(
        self, target: Target, sock: socket.socket | None, over: Connection | None, login: Login
    ) -> Connection:
        may_ask = () if not self._dialog.batch else False
        return await asyncssh.connect(
            target.place.host,  # the configuration is matched by this name
            target.port,
            username=target.user,
            sock=sock,
            tunnel=over,
            config=self._files,
            client_factory=lambda: login,
            known_hosts=lambda *_: login.known.trusted(),
            server_host_key_algs=_host_key_algorithms(target, login.known),
            client_keys=None,  # `login` offers them
            password_auth=may_ask,
            kbdint_auth=may_ask,
            agent_forwarding=False,
            x11_forwarding=False,
            request_pty=False,
            command=None,
            connect_timeout=None,  # the person's answers would count
            login_timeout=0,
            keepalive_interval=self._numbers.get("ServerAliveInterval", 0),
            keepalive_count_max=self._numbers.get("ServerAliveCountMax", 3),
        )


class Watchdog:
    """Ends a connection whose server says nothing at all; the person may take their time."""

    def __init__(self, seconds: int | None, target: Target, dialog: Dialog) -> None:
        self._seconds, self._target, self._dialog = seconds, target, dialog

    def __call__(self, connection: Connection) -> None:
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._check, connection)

    def _check(self, connection: Connection) -> None:
        if connection.get_extra_info("server_version") is None:
            self._dialog.say("Connection timed out during banner exchange")
            connection.abort()


def _host_key_algorithms(target: Target, known: KnownHost) -> str | tuple[()]:
    if known.keys or known.authorities or target.settings.get("HostKeyAlgorithms"):
        return ()
    # Without a known authority a certificate says nothing: have the plain key, and ask about it.
    return "-*-cert-*"


def _start_proxy(command: str) -> socket.socket:
    """By the person's shell, as ssh(1) does: it is their own text, from their own file."""
    ours, theirs = socket.socketpair()
    shell = os.environ.get("SHELL", "/bin/sh")
    with theirs:
        subprocess.Popen(
            [shell, "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    ours.setblocking(False)
    return ours
