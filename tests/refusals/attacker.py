"""The attacker's tools: a user's key, and three SSH clients.

OpenSSH sends only regular requests; paramiko and asyncssh send any request.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from tests.stage.machine import RUN
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.sshd import Login, Sshd

SECRET = b"the secret behind the door\n"


class Treasure:
    """A listener that sends SECRET to everybody who connects; `visitors` counts them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.visitors = 0
        sock.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = self._sock.accept()
                self.visitors += 1
                with visitor:
                    visitor.sendall(SECRET)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


@contextlib.contextmanager
def unix_treasure(path: Path) -> Iterator[Treasure]:
    """A socket that every local user may connect to, so that only sshd can refuse."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(0o777)
    treasure = Treasure(sock)
    try:
        yield treasure
    finally:
        treasure.close()
        path.unlink()


@contextlib.contextmanager
def tcp_treasure() -> Iterator[tuple[Treasure, int]]:
    """A Treasure at a TCP port of 127.0.0.1, and the port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = int(sock.getsockname()[1])
    treasure = Treasure(sock)
    try:
        yield treasure, port
    finally:
        treasure.close()


def visit(path: Path, say: bytes = b"", timeout: float = 5) -> bytes:
    """Connect to a Unix socket, send `say`, and return all that is received."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        return read_to_end(sock, say)


def read_to_end(sock: socket.socket, say: bytes = b"") -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        if say:
            sock.sendall(say)
        while part := sock.recv(65536):
            data += part
    return data


def local_socket(name: str) -> Path:
    """A path for the local end of an ssh -L; a file there is removed."""
    path = RUN / f"{name}.sock"
    path.unlink(missing_ok=True)
    return path


def wait_for_socket(path: Path, ssh: Process) -> None:
    ssh.until(path.is_socket, 10, f"ssh to listen at {path}")


@contextlib.contextmanager
def transport(login: Login) -> Iterator[paramiko.Transport]:
    """A paramiko connection, logged in, with its host key checked."""
    connection = paramiko.Transport((login.host, login.port))
    try:
        kind, blob = login.host_key.split()
        assert kind == "ssh-ed25519"
        host_key = paramiko.Ed25519Key(data=base64.b64decode(blob))
        connection.connect(
            hostkey=host_key,
            username=login.user,
            pkey=paramiko.Ed25519Key(filename=str(login.key)),
        )
        yield connection
    finally:
        connection.close()


def request(channel: paramiko.Channel, kind: bytes, *fields: bytes | int | bool) -> bool:
    """Send any channel request; returns whether the server granted it.

    paramiko closes the channel if a request is refused.
    """
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(kind)
    message.add_boolean(True)
    for field in fields:
        if isinstance(field, bool):
            message.add_boolean(field)
        elif isinstance(field, int):
            message.add_int(field)
        else:
            message.add_string(field)
    inside: Any = channel  # paramiko has no public call for this
    try:
        inside._event_pending()
        inside.transport._send_user_message(message)
        inside._wait_for_event()
    except (paramiko.SSHException, EOFError):
        return False
    return True


def execute(login: Login, command: bytes, timeout: float = 10) -> tuple[int, bytes, bytes]:
    """Exec `command`, byte for byte; returns exit code (-1 without one), stdout, stderr."""
    with transport(login) as connection:
        channel = connection.open_session(timeout=timeout)
        channel.settimeout(timeout)
        if not request(channel, b"exec", command):
            return -1, b"", b""
        out = b"".join(iter(lambda: channel.recv(65536), b""))
        err = b"".join(iter(lambda: channel.recv_stderr(65536), b""))
        return channel.recv_exit_status(), out, err


@contextlib.contextmanager
def held_session(sshd: Sshd, person: Person, vm: str) -> Iterator[paramiko.Transport]:
    """A paramiko connection with a session at `vm`, which is ready."""
    with transport(sshd.login(person)) as connection:
        channel = connection.open_session(timeout=10)
        channel.settimeout(10)
        channel.exec_command(f"open --json {vm}")
        lines = channel.makefile("r")
        line = lines.readline() + lines.readline()  # the gate begins on a line of its own
        if '"ready"' not in line:
            raise StageError(f"no session: {line!r}")
        yield connection


def nobody_came(treasure: Treasure) -> bool:
    return treasure.visitors == 0


def canary(person: Person, name: str) -> Path:
    """A path that a successful attack would create."""
    path = person.home / f"canary-{name}"
    path.unlink(missing_ok=True)
    return path
