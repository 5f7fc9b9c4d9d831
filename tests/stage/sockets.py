"""Checks sockets without connecting to them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

#: Flags of a listening socket in /proc/net/unix (SO_ACCEPTCON).
LISTENING = "00010000"

#: Below the kernel's range for outgoing connections, so that a free port stays free.
PORTS = range(20000, 32000)


def is_listening(path: Path) -> bool:
    """Whether a Unix socket listens at `path`. Not by a connection, which the listener might log.
    Checks the file too: it may be deleted while its socket still listens."""
    if not path.is_socket():
        return False
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    fields = (line.split(maxsplit=7) for line in lines)
    return any(field[3] == LISTENING and field[7:] == [str(path)] for field in fields)


def free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
