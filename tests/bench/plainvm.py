"""A VM for the bench: a process that answers a SPICE link with one byte, and then obeys orders.

An order is a letter and a 64-bit number N: E echoes N bytes one by one, D sends N bytes, U receives
N bytes and answers with one. `python3 plainvm.py SOCKET...` listens at each socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading

#: ord(letter), N
ORDER = struct.Struct(">BQ")
LINK_HEADER = struct.Struct("<4sIII")  # REDQ, major, minor, size of the rest
BLOCK = 256 * 1024


def order(letter: bytes, number: int) -> bytes:
    return ORDER.pack(letter[0], number)


def receive(sock: socket.socket, count: int) -> None:
    """Receive `count` bytes and discard them. Raises EOFError if the other end closes early."""
    buffer = bytearray(BLOCK)
    while count:
        part = sock.recv_into(buffer, min(count, BLOCK))
        if not part:
            raise EOFError
        count -= part


def send(sock: socket.socket, count: int) -> None:
    block = bytes(BLOCK)
    for _ in range(count // BLOCK):
        sock.sendall(block)
    sock.sendall(block[: count % BLOCK])


def _read(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data


def _serve(channel: socket.socket) -> None:
    # The broker's check whether the VM listens connects and closes; that ends here too.
    with channel, contextlib.suppress(EOFError, ConnectionError):
        *_, size = LINK_HEADER.unpack(_read(channel, LINK_HEADER.size))
        receive(channel, size)
        channel.sendall(b"!")
        while True:
            letter, number = ORDER.unpack(_read(channel, ORDER.size))
            _ORDERS[letter](channel, number)


def _echo(channel: socket.socket, count: int) -> None:
    for _ in range(count):
        channel.sendall(_read(channel, 1))


def _take(channel: socket.socket, count: int) -> None:
    receive(channel, count)
    channel.sendall(b"!")


_ORDERS = {ord("E"): _echo, ord("D"): send, ord("U"): _take}


def _listen(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            channel, _ = listener.accept()
            threading.Thread(target=_serve, args=(channel,), daemon=True).start()


def main() -> None:
    os.umask(0)  # all users may connect: the reference's sshd is another user than the broker
    for path in sys.argv[1:]:
        threading.Thread(target=_listen, args=(path,)).start()


if __name__ == "__main__":
    main()
