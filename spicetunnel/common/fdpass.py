"""Packets with file descriptors alongside (unix(7), SCM_RIGHTS).

`socket.recv_fds` drops its flags on CPython, so received descriptors would be inherited by
children, and it does not tell a truncated control message: hence recvmsg by hand.
"""

import array
import os
import socket

from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import MAX_PACKET

_FD_SIZE = array.array("i").itemsize


def send(sock: socket.socket, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one packet whole, or raise OSError (BlockingIOError if the peer does not read)."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, max_fds: int = 0) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, close-on-exec. An empty packet is the end.

    Raises ProtocolError where either was cut short; then no descriptor stays open.
    """
    space = socket.CMSG_SPACE(max_fds * _FD_SIZE) if max_fds else 0
    try:
        packet, control, flags, _ = sock.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer left with something unread. The kernel says so once, and ahead of the
        # peer's own last packets, which are still there.
        packet, control, flags, _ = sock.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(control)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > max_fds:
        close_all(fds)
        raise ProtocolError("a packet is too long or carries too many descriptors")
    return packet, fds


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(fds)
