"""Who is at the other end of a socket: by the kernel's word, never by a message's.

SO_PEERCRED names the process that connected. A *connection anchor* is the parent of a gate: sshd's
own process for that one SSH connection, which is also the process (or an ancestor of it) that
connects to tunnel.sock for every channel forwarded over that connection. See unix(7), proc(5),
pidfd_open(2).
"""

import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from spicetunnel.common import processes
from spicetunnel.common.errors import NotPermittedError

_MAX_DEPTH = 32  # process generations between sshd and a forwarded connection; one is usual
_INIT = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, at the time it did, and the user it ran as."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class Status:
    """What /proc says of a process now: its parent, and its real, effective, saved and fs uid."""

    parent: int
    uids: frozenset[int]


@dataclass(slots=True)
class Anchor:
    """The SSH connection a session belongs to.

    Held by a pidfd, so that its pid cannot be given to another process unnoticed. `started` is the
    kernel's time of its start, in ticks: with the pid, it names the process to another broker.
    """

    pid: int
    started: int
    pidfd: int = field(repr=False)

    @property
    def alive(self) -> bool:
        return not is_readable(self.pidfd)

    def close(self) -> None:
        os.close(self.pidfd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def peer_of(sock: socket.socket) -> Peer:
    return Peer(*processes.peer_of(sock))


def anchor_of(gate: Peer) -> Anchor:
    """The gate's parent process.

    Raises NotPermittedError if it is not the same user's. A gate whose parent died belongs to init,
    and everybody's processes are below init.
    """
    parent = _status_as(gate.pid, gate.uid).parent
    if parent <= _INIT:
        raise NotPermittedError("the gate does not run below an SSH connection")
    pidfd = _pidfd(parent)
    try:
        _status_as(parent, gate.uid)
        # Asked again with the pidfd in hand: had the parent died and its pid been given
        # away before, the gate would have another parent by now.
        if _status_as(gate.pid, gate.uid).parent != parent:
            raise NotPermittedError("the SSH connection of the gate is gone")
        started = _started(parent)
    except BaseException:
        os.close(pidfd)
        raise
    return Anchor(parent, started, pidfd)


def anchor_again(pid: int, started: int) -> Anchor | None:
    """The process that another broker noted; None if it has ended."""
    try:
        return Anchor(pid, started, processes.hold(pid, started))
    except OSError:
        return None


def vm_end(sock: socket.socket) -> tuple[int, int]:
    """Identifies the connection: the socket's inode, and the pid of who listened."""
    return os.fstat(sock.fileno()).st_ino, peer_of(sock).pid


def lineage(peer: Peer) -> Iterator[int]:
    """The pids of the peer's process and of those above it, as long as they are the same user's.

    Read as they are asked for: the first is the usual answer, and the rest is not looked at.
    """
    pid = peer.pid
    for _ in range(_MAX_DEPTH):
        if pid <= _INIT:
            return
        try:
            status = _status_as(pid, peer.uid)
        except NotPermittedError:
            return
        yield pid
        pid = status.parent


def is_readable(fd: int) -> bool:
    """Whether a poll of `fd` would return at once; for a pidfd: the process has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        raise NotPermittedError(f"process {pid} is gone") from None


def _status_as(pid: int, uid: int) -> Status:
    """The status of a process. Raises NotPermittedError if any of its uids is not `uid`."""
    status = _status(pid)
    if status.uids != {uid}:
        raise NotPermittedError(f"process {pid} is not uid {uid}'s")
    return status


def _started(pid: int) -> int:
    try:
        return processes.start_time(pid)
    except OSError:
        raise NotPermittedError(f"process {pid} cannot be seen in /proc") from None


def _status(pid: int) -> Status:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":\t", 1) for line in file if b":\t" in line)
    except OSError:
        # Gone, or hidden: /proc mounted with hidepid shows us nobody, and we let nobody in.
        raise NotPermittedError(f"process {pid} cannot be seen in /proc") from None
    return Status(int(fields[b"PPid"]), frozenset(map(int, fields[b"Uid"].split())))
