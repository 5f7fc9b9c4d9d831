"""The local end of the tunnel, where the viewer connects.

A socket in a directory of the person's alone; only for a viewer that has no Unix sockets, and
where its person says so, a port of this machine, which everybody on it can reach.
"""

import contextlib
import os
import shutil
import socket
import stat
from typing import NamedTuple, Self

from spice_connect.errors import UnavailableError
from spice_connect.names import MAX_SOCKET_PATH, PLAIN_PATH
from spice_connect.ui.terminal import Terminal

LOOPBACK = "127.0.0.1"
#: All TCP sockets of IPv4; proc(5). Absent on other systems.
TCP_TABLE = "/proc/net/tcp"
LISTEN = "0A"

FALLBACK = "/tmp"  # noqa: S108 - only to make a fresh directory of mode 0700 in it
NAME = "spice-"
RANDOM_BYTES = 6
SOCKET = "spice"  # constant and short: no VM's and no user's name may make the path too long


class LocalEnd(NamedTuple):
    path: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As ssh's -L has it, and as it is shown."""
        return self.path or f"{LOOPBACK}:{self.port}"

    @classmethod
    def private(cls, directory: str) -> Self:
        """An ended ssh leaves its socket, and the next one would not bind in its place."""
        clear_socket(directory)
        return cls(path=socket_path(directory))

    @classmethod
    def open_port(cls, terminal: Terminal) -> Self:
        """One that is free now. ssh takes it a moment later: see `require`."""
        with socket.create_server((LOOPBACK, 0)) as trial:
            local_end = cls(port=trial.getsockname()[1])
        terminal.tell(
            f"everybody on this machine can reach this VM at {local_end} while you have it open",
            "a viewer that takes a Unix socket needs no viewer-port in the configuration",
        )
        return local_end

    def require(self) -> Self:
        """Ssh listens before it asks the server to run anything, or has said why it cannot."""
        if not (_is_socket(self.path) if self.path else _is_mine(self.port)):
            raise UnavailableError("ssh did not open the tunnel's end here")
        return self


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_mine(port: int) -> bool:
    """Somebody else may have been faster, and show us what they like. The kernel says whose it is.

    Where there is no such table, nobody can say.
    """
    try:
        with open(TCP_TABLE, encoding="ascii") as table:
            lines = [line.split() for line in table][1:]
    except FileNotFoundError:
        return True
    return any(_matches(fields, port) for fields in lines)


def _matches(fields: list[str], port: int) -> bool:
    local, state, uid = fields[1], fields[3], fields[7]
    return local.endswith(f":{port:04X}") and state == LISTEN and int(uid) == os.geteuid()


def parent_directory() -> str:
    """Where to make the directory: the session's own place if it is sound, else /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if _fits(runtime) and _is_mine_alone(runtime):
        return runtime
    if _keeps_entries(FALLBACK):
        return FALLBACK
    raise UnavailableError(
        "no safe place for the tunnel's socket",
        f"{FALLBACK} must be root's and sticky, or XDG_RUNTIME_DIR yours alone (mode 0700)",
    )


def make_directory(parent: str) -> str:
    """A fresh directory of ours; an existing one is never taken over."""
    path = f"{parent}/{NAME}{os.urandom(RANDOM_BYTES).hex()}"
    os.mkdir(path, 0o700)
    if not _is_mine_alone(path):  # an odd umask, an odd file system
        os.rmdir(path)
        raise PermissionError(f"{path} did not become private")
    return path


def remove_directory(path: str) -> None:
    """All that is in the directory, and it; where a link leads to, all stays."""
    shutil.rmtree(path)


def clear_socket(directory: str) -> None:
    """An ended ssh leaves its socket, and the next one would not bind in its place."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path(directory))


def socket_path(directory: str) -> str:
    return f"{directory}/{SOCKET}"


def _fits(parent: str) -> bool:
    longest = socket_path(f"{parent}/{NAME}{'0' * 2 * RANDOM_BYTES}")
    return PLAIN_PATH.fullmatch(parent) is not None and len(longest) <= MAX_SOCKET_PATH


def _is_mine_alone(path: str) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    mine = info.st_uid == os.geteuid()
    return mine and stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o700


def _keeps_entries(path: str) -> bool:
    """Whether nobody else can rename our directory away and put theirs in its place."""
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (0, os.geteuid()):
        return False
    return bool(info.st_mode & stat.S_ISVTX) or not info.st_mode & 0o022
