"""Programs that flood the broker's sockets, as whoever runs them: `python3 -c CODE KIND PATH`.

connect-stream, connect-packet: connect and close, as fast as possible. hold-stream, hold-packet:
connect, and keep the connections. Each runs until it is killed.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
import time
from pathlib import Path

#: Given to python3 as text: the person may not be able to read this checkout.
CODE = Path(__file__).read_text() if "__file__" in globals() else ""
TYPES = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET}


def connect(path: str, kind: socket.SocketKind) -> None:
    while True:
        with socket.socket(socket.AF_UNIX, kind) as sock, contextlib.suppress(OSError):
            sock.connect(path)


def hold(path: str, kind: socket.SocketKind) -> None:
    held: list[socket.socket] = []
    while True:
        try:
            sock = socket.socket(socket.AF_UNIX, kind)
            held.append(sock)
            sock.connect(path)
        except OSError:
            # No more descriptors, or nobody listens: let go of those that the other end closed.
            time.sleep(0.2)
            held = [each for each in held if _is_open(each)]


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    what, _, kind = sys.argv[1].partition("-")
    {"connect": connect, "hold": hold}[what](sys.argv[2], TYPES[kind])


if __name__ == "__main__":
    main()
