"""Connects to a VM's SPICE socket."""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Literal

from spicetunnel.common.errors import NotRunningError, SpicetunnelError, os_reason

_TRIES = 20  # a full backlog empties within milliseconds on a healthy QEMU
_PAUSE = 0.05  # seconds
_ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED})  # no QEMU listens

State = Literal["running", "off", "unreachable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A VM's socket. `born` tells its file from a later one: QEMU makes a new one at each start."""

    socket: str
    born: str


async def connect(vm_name: str, path: str) -> socket.socket:
    """A connection to the socket at `path`.

    Raises NotRunningError where no QEMU listens, SpicetunnelError where it cannot be reached.
    """
    for _ in range(_TRIES):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(_PAUSE)
        except OSError as error:
            sock.close()
            raise _explained(vm_name, error) from None
        else:
            return sock
    raise SpicetunnelError(f"'{vm_name}' does not answer", "its QEMU may hang: tell the admin")


async def find(vm_name: str, path: str) -> Place:
    """Where the VM runs now. Raises as `connect` does."""
    (await connect(vm_name, path)).close()
    return Place(path, _born(path))


def state(path: str) -> State:
    """What a connection to the socket at `path` would find. Costs QEMU one short connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            pass  # something listens: its backlog is full
        except OSError as error:
            return "off" if error.errno in _ABSENT else "unreachable"
    return "running"


def running_at(path: str) -> str:
    """When the socket at `path` was made, if something listens there; else empty."""
    return _born(path) if state(path) == "running" else ""


def is_running(path: str) -> bool:
    return state(path) == "running"


def _born(path: str) -> str:
    """A free inode is given away again at once, so the time counts too."""
    try:
        found = os.stat(path)
    except OSError:
        return ""  # it has just gone
    return f"{found.st_ino}:{found.st_mtime_ns}"


def _explained(vm_name: str, error: OSError) -> SpicetunnelError:
    if error.errno in _ABSENT:
        return NotRunningError(f"'{vm_name}' is not running", "ask the admin to start it")
    return SpicetunnelError(
        f"the console of '{vm_name}' cannot be reached ({os_reason(error)})",
        "tell the admin: the broker may not open the VM's socket",
    )
