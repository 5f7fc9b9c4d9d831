"""What the service manager passes to a daemon: sd_listen_fds(3), sd_notify(3).

Without a service manager all of this does nothing.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping

_FIRST_FD = 3  # SD_LISTEN_FDS_START


def inherited(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the service manager passed to us, close-on-exec.

    Takes the variables out of `environment`, so that no child believes they are its own.
    """
    pid, count, _names = (
        environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    return [socket.socket(fileno=fd) for fd in fds]


def notify_ready(environment: Mapping[str, str]) -> None:
    """Tell the service manager that the daemon is ready."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
            sock.send(b"READY=1")
        except OSError:
            pass  # nothing of ours depends on it
