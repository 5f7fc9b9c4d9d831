"""Connects to a VM's SPICE socket."""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Literal

from spicetunnel.common.errors import NotRunningError, SpicetunnelError

_TRIES = 20  # a full backlog empties within milliseconds on a healthy QEMU
_PAUSE = 0.05  # seconds
_ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED})  # nobody listens there

State = Literal["running", "off", "unreachable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A VM's socket. `inode` is that of its file: QEMU makes a new one at each start."""

    socket: str
    inode: int


async def dial(vm_name: str, path: str) -> socket.socket:
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
    """Where the VM is running now. Raises as `dial`."""
    (await dial(vm_name, path)).close()
    return Place(path, _inode(path))


def state(path: str) -> State:
    """What a connection to the socket at `path` would find. Costs QEMU one short connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            pass  # a full backlog is somebody's
        except OSError as error:
            return "off" if error.errno in _ABSENT else "unreachable"
    return "running"


def running_at(path: str) -> int:
    """The inode of the socket at `path` if something listens there; else 0."""
    return _inode(path) if state(path) == "running" else 0


def is_running(path: str) -> bool:
    return running_at(path) != 0


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0  # it has just gone


def _explained(vm_name: str, error: OSError) -> SpicetunnelError:
    if error.errno in _ABSENT:
        return NotRunningError(f"'{vm_name}' is not running", "ask the admin to start it")
    return SpicetunnelError(
        f"the console of '{vm_name}' cannot be reached ({error.strerror})",
        "tell the admin: the broker may not open the VM's socket",
    )
