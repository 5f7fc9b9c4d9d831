"""Asking about sockets without touching them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

#: Flags of a listening socket in /proc/net/unix (SO_ACCEPTCON).
LISTENING = "00010000"

#: Below the range the kernel hands out to outgoing connections: what is free now stays free.
PORTS = range(20000, 32000)


def is_listening(path: Path) -> bool:
    """Whether a Unix socket is bound to `path` and listens. A trial connection would leave its
    trace in the listener's log. The file is looked for too: it may be gone, the listener not."""
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
