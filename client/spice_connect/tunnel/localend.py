"""The local end of the tunnel, where the viewer connects, and the private directory it is in.

A socket in a directory that only the user can enter. For a viewer without Unix sockets, if the
configuration says so, a TCP port of this machine, which everybody on it can reach.
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
#: All IPv4 TCP sockets, see proc(5). Only Linux has it.
TCP_TABLE = "/proc/net/tcp"
LISTEN = "0A"

FALLBACK = "/tmp"  # noqa: S108 - for a new directory of mode 0700 in it
NAME = "spice-"
RANDOM_BYTES = 6
SOCKET = "spice"  # no name of a VM or user in it, which could make the path too long


class LocalEnd(NamedTuple):
    path: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As in ssh's -L, and in messages."""
        return self.path or f"{LOOPBACK}:{self.port}"

    @classmethod
    def private(cls, directory: str) -> Self:
        """A socket in a private directory. Removes what an earlier ssh has left there."""
        clear_socket(directory)
        return cls(path=socket_path(directory))

    @classmethod
    def one_of_several(cls, directory: str, number: int) -> Self:
        """Another socket there, for the connection to one of several hosts. No path is longer."""
        return cls(path=f"{directory}/s{number}")

    @classmethod
    def open_port(cls, terminal: Terminal) -> Self:
        """A port that is free now. ssh binds it a moment later: see `require`."""
        with socket.create_server((LOOPBACK, 0)) as trial:
            local_end = cls(port=trial.getsockname()[1])
        terminal.tell(
            f"everybody on this machine can reach this VM at {local_end} while you have it open",
            "a viewer that takes a Unix socket needs no viewer-port in the configuration",
        )
        return local_end

    def require(self) -> Self:
        """Itself. Raises UnavailableError if ssh does not listen; it does once `ready` has come."""
        if not (_is_socket(self.path) if self.path else _is_mine(self.port)):
            raise UnavailableError(
                "ssh did not open the tunnel's end here",
                "what ssh says about it stands above; spice-connect -vv shows more",
            )
        return self


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_mine(port: int) -> bool:
    """Whether this user listens at the port, by the kernel's table; True if there is no table.

    Another user may have bound the port before ssh, to show us a false VM.
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
    """Where to make the private directory: XDG_RUNTIME_DIR if it is safe, else /tmp.

    Raises UnavailableError if neither is safe.
    """
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
    """Make a new private directory; never use an existing one. Raises OSError."""
    path = f"{parent}/{NAME}{os.urandom(RANDOM_BYTES).hex()}"
    os.mkdir(path, 0o700)
    if not _is_mine_alone(path):  # an unusual umask or file system
        os.rmdir(path)
        raise PermissionError(f"{path} did not become private")
    return path


def remove_directory(path: str) -> None:
    """Remove the directory with its content. Symbolic links are not followed."""
    shutil.rmtree(path)


def clear_socket(directory: str) -> None:
    """Remove the socket that an ended ssh has left: the next ssh could not bind there."""
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
    """Whether nobody else can replace our directory in this one."""
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (0, os.geteuid()):
        return False
    return bool(info.st_mode & stat.S_ISVTX) or not info.st_mode & 0o022
