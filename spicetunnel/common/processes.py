"""What the kernel says of the process at the other end of a Unix socket: unix(7), proc(5)."""

import os
import socket
import struct

_UCRED = struct.Struct("iII")


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process that connected to us, or that listens where we connected."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(packed)
    return pid, uid


def start_time(pid: int) -> int:
    """When the process started, in the kernel's ticks since boot: with the pid, it names a process
    for good. Raises OSError where there is none, or where /proc hides it.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        # Field 22. The name before it may hold anything, parentheses too.
        return int(file.read().rpartition(b")")[2].split()[19])


def hold(pid: int, started: int) -> int:
    """A pidfd of the process with this pid and start time, so that the pid cannot be reused.

    Raises OSError where the process has ended.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if start_time(pid) != started:
            raise ProcessLookupError(f"process {pid} is another one")
    except OSError:
        os.close(pidfd)
        raise
    return pidfd
