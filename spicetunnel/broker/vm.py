"""A VM as the broker reaches it: its SPICE socket, whether it runs, and its password.

The password is read when it is needed, and never kept. It goes to the gate, and so to the person's
client, inside SSH. It opens nothing by itself: the VM's socket is the broker's. No log, no record
and no message for people holds it.
"""

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Literal

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import NotRunningError, SpicetunnelError, os_reason
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import Vm

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
    """The VM's state, by a short connection to the socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            pass  # something listens: its backlog is full
        except OSError as error:
            return "off" if error.errno in _ABSENT else "unreachable"
    return "running"


def running_at(path: str) -> str:
    """The `born` of the socket at `path` if something listens there; else empty."""
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


MAX_BYTES = 60  # spice-server's own limit, SPICE_MAX_PASSWORD_LENGTH


def password_of(name: str, vm: Vm | None, audit: Audit) -> str:
    """The password; empty if the map names none. Raises SpicetunnelError, and logs why."""
    if vm is None or not vm.password_file:
        return ""
    try:
        return _one_line(read_trusted(vm.password_file, secret=True))
    except MapError as error:
        why = "; ".join(problem.message for problem in error.problems)
    except ValueError as error:
        why = str(error)
    audit.write("fault", vm=name, reason=f"password-file {vm.password_file} {why}")
    raise SpicetunnelError(
        f"the server cannot read the password of '{name}'", "tell the admin of this server"
    )


def _one_line(data: bytes) -> str:
    """Raises ValueError, whose text does not contain what was read."""
    line = data.removesuffix(b"\n")
    if not 1 <= len(line) <= MAX_BYTES:
        raise ValueError(f"must hold 1 to {MAX_BYTES} bytes on one line")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise ValueError("must hold one line of printable text")
    return text
