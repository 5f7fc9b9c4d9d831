"""Connects to a VM's SPICE socket."""

import asyncio
import errno
import socket

from spicetunnel.common.errors import NotRunningError, SpicetunnelError

_TRIES = 20  # a full backlog empties within milliseconds on a healthy QEMU
_PAUSE = 0.05  # seconds


async def dial(vm_name: str, path: str) -> socket.socket:
    """A connection to the socket at `path`.

    Raises NotRunningError where no QEMU listens, SpicetunnelError where it cannot be reached.
    """
    for _ in range(_TRIES):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(_PAUSE)
        except OSError as error:
            sock.close()
            raise _explained(vm_name, error) from None
        else:
            return sock
    raise SpicetunnelError(f"'{vm_name}' does not answer", "its QEMU may hang: tell the admin")


def is_running(path: str) -> bool:
    """Whether something listens on the socket at `path`. Costs QEMU one short connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # a full backlog is somebody's
        except OSError:
            return False
    return True


def _explained(vm_name: str, error: OSError) -> SpicetunnelError:
    if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
        return NotRunningError(f"'{vm_name}' is not running", "ask the admin to start it")
    return SpicetunnelError(
        f"the console of '{vm_name}' cannot be reached ({error.strerror})",
        "tell the admin: the broker may not open the VM's socket",
    )
