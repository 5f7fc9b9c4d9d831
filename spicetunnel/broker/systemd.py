"""What the service manager gives us and keeps for us: sd_listen_fds(3), sd_notify(3).

Its file descriptor store (FileDescriptorStoreMax= in systemd.service(5)) holds a duplicate of every
VM's end. A broker that was killed leaves them to its successor there, out of reach of the gates: so
a gate that does not hand its session back cannot keep it either.

Without a service manager all of this does nothing.
"""

import array
import os
import socket
from collections.abc import Mapping, MutableMapping

_FIRST_FD = 3  # SD_LISTEN_FDS_START


def inherited(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that the service manager passed to us, by name, close-on-exec.

    Takes the variables out of `environment`, so that no child believes they are its own.
    """
    pid, count, names = (
        environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    named = zip(names.split(":"), fds, strict=False)
    return [(name, socket.socket(fileno=fd)) for name, fd in named]


class ServiceManager:
    """Where NOTIFY_SOCKET leads; nowhere without it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self) -> None:
        self._notify("READY=1")

    def keep(self, name: str, fd: int) -> None:
        """Hold a duplicate of `fd` under `name`, beside others of that name.

        The manager lets go of it by itself when the other end hangs up.
        """
        self._notify(f"FDSTORE=1\nFDNAME={name}", fd)

    def drop(self, name: str) -> None:
        """Let go of all of that name."""
        self._notify(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _notify(self, state: str, *fds: int) -> None:
        if not self._address:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect(self._address)
                sock.sendmsg([state.encode()], rights)
            except OSError:
                pass  # the manager's loss is no reason to end anybody's session
