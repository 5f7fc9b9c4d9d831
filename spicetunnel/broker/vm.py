"""A VM as the broker reaches it: its SPICE socket, and whether it runs.

The path is the admin's, but the directory at its end may be a QEMU's own. So no symbolic link in it
is followed: a QEMU could pass another VM's socket off as its own.
"""

import asyncio
import errno
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from spicetunnel.common.errors import NotRunningError, SpicetunnelError, os_reason

_TRIES = 20  # a full backlog empties within milliseconds on a healthy QEMU
_PAUSE = 0.05  # seconds
_FRESH = 1.0  # seconds that a state is taken for the present one
_ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED})  # no QEMU listens
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

State = Literal["running", "off", "unreachable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A VM's socket. `born` tells its file from a later one: QEMU makes a new one at each start."""

    socket: str
    born: str


class UnreachableError(SpicetunnelError):
    """The VM's socket is there, or may be, and the broker cannot connect to it."""


async def connect(vm_name: str, path: str) -> tuple[socket.socket, Place]:
    """A connection to the socket at `path`, and which socket it is.

    Raises NotRunningError where no QEMU listens, UnreachableError where it cannot be reached.
    """
    for _ in range(_TRIES):
        try:
            sock, born = _connected(path)
        except BlockingIOError:
            await asyncio.sleep(_PAUSE)
        except OSError as error:
            raise _explained(vm_name, error) from None
        else:
            return sock, Place(path, born)
    raise UnreachableError(f"'{vm_name}' does not answer", "its QEMU may hang: tell the admin")


async def find(vm_name: str, path: str) -> Place:
    """Where the VM runs now. Raises as `connect` does."""
    sock, place = await connect(vm_name, path)
    sock.close()
    return place


def require_running(vm_name: str, path: str) -> Place:
    """Where the VM runs now, without waiting for one that is slow. Raises as `connect` does."""
    try:
        return Place(path, _listens(path))
    except OSError as error:
        raise _explained(vm_name, error) from None


def state(path: str) -> State:
    """The VM's state, by a short connection to the socket at `path`."""
    try:
        _listens(path)
    except OSError as error:
        return "off" if error.errno in _ABSENT else "unreachable"
    return "running"


class States:
    """The states of VMs, looked up in a thread, and remembered for a moment: with thousands of VMs,
    or one on a slow file system, it takes a while.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, State]] = {}
        self._looking = asyncio.Lock()

    async def of(self, paths: Iterable[str]) -> Mapping[str, State]:
        """The state of the VM at each path."""
        wanted = list(paths)
        async with self._looking:  # whoever comes meanwhile finds what the first one has found
            now = time.monotonic()
            self._known = {path: it for path, it in self._known.items() if now - it[0] < _FRESH}
            missing = [path for path in wanted if path not in self._known]
            found = await asyncio.to_thread(lambda: [state(path) for path in missing])
            self._known.update({p: (now, it) for p, it in zip(missing, found, strict=True)})
            return {path: self._known[path][1] for path in wanted}


def _connected(path: str) -> tuple[socket.socket, str]:
    """A connection, and `born` of its socket's file. Raises OSError."""
    with _opened(path) as fd:
        return _connected_to(fd), _born(fd)


def _listens(path: str) -> str:
    """`born` of the file of a socket that somebody listens at. Raises OSError."""
    with _opened(path) as fd:
        try:
            _connected_to(fd).close()
        except BlockingIOError:
            pass  # somebody listens: the backlog is full
        return _born(fd)


def _connected_to(fd: int) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(f"/proc/self/fd/{fd}")
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """An O_PATH descriptor of the file, reached part by part without a link. Raises OSError."""
    fd = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        *directories, name = [part for part in path.split("/") if part]
        for part in directories:
            fd = _step(fd, part, os.O_DIRECTORY)
        fd = _step(fd, name)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, "its path is a symbolic link")
        yield fd
    finally:
        os.close(fd)


def _step(directory: int, name: str, flags: int = 0) -> int:
    """Open `name` in the directory, whose descriptor is closed on success. Raises OSError."""
    try:
        fd = os.open(name, _LOOK | flags, dir_fd=directory)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a symbolic link is in its path") from None
        raise
    os.close(directory)
    return fd


def _born(fd: int) -> str:
    """A free inode is given away again at once, so the time counts too."""
    found = os.fstat(fd)
    return f"{found.st_ino}:{found.st_mtime_ns}"


def _explained(vm_name: str, error: OSError) -> SpicetunnelError:
    if error.errno in _ABSENT:
        return NotRunningError(f"'{vm_name}' is not running", "ask the admin to start it")
    return UnreachableError(
        f"the console of '{vm_name}' cannot be reached ({os_reason(error)})",
        "tell the admin: the broker may not open the VM's socket",
    )
