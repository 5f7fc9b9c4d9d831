"""The near end of the tunnel, where the viewer connects.

A socket in a directory of the person's alone; only for a viewer that has no Unix sockets, and
where its person says so, a port of this machine, which everybody on it can reach.
"""

import os
import socket
import stat
from typing import NamedTuple, Self

from spice_connect.errors import UnavailableError
from spice_connect.tunnel import workdir
from spice_connect.ui.terminal import Terminal

LOOPBACK = "127.0.0.1"
#: All TCP sockets of IPv4; proc(5). Absent on other systems.
TCP_TABLE = "/proc/net/tcp"
LISTEN = "0A"


class NearEnd(NamedTuple):
    path: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As ssh's -L has it, and as it is shown."""
        return self.path or f"{LOOPBACK}:{self.port}"

    @classmethod
    def private(cls, directory: str) -> Self:
        """An ended ssh leaves its socket, and the next one would not bind in its place."""
        workdir.clear_socket(directory)
        return cls(path=workdir.socket_path(directory))

    @classmethod
    def open_port(cls, terminal: Terminal) -> Self:
        """One that is free now. ssh takes it a moment later: see `require`."""
        with socket.create_server((LOOPBACK, 0)) as trial:
            near = cls(port=trial.getsockname()[1])
        terminal.tell(
            f"everybody on this machine can reach this VM at {near} while you have it open",
            "a viewer that takes a Unix socket needs no viewer-port in the configuration",
        )
        return near

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
