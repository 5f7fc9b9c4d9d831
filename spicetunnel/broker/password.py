"""A VM's password: read from its file when it is needed, and never kept.

It goes to the gate, and so to the person's client, inside SSH. It opens nothing by itself: the VM's
socket is the broker's. No log, no record and no message for people holds it.
"""

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import Vm

MAX_BYTES = 60  # spice-server's own limit, SPICE_MAX_PASSWORD_LENGTH


def password_of(name: str, vm: Vm | None, audit: Audit) -> str:
    """The password; empty if the map names none. Raises SpicetunnelError, and logs why."""
    if vm is None or not vm.password_file:
        return ""
    try:
        return _one_line(read_trusted(vm.password_file, secret=True))
    except MapError as error:
        why = "; ".join(problem.message for problem in error.problems)
    except ValueError as error:
        why = str(error)
    audit.write("fault", vm=name, reason=f"password-file {vm.password_file} {why}")
    raise SpicetunnelError(
        f"the server cannot read the password of '{name}'", "tell the admin of this server"
    )


def _one_line(data: bytes) -> str:
    """Raises ValueError, whose text does not contain what was read."""
    line = data.removesuffix(b"\n")
    if not 1 <= len(line) <= MAX_BYTES:
        raise ValueError(f"must hold 1 to {MAX_BYTES} bytes on one line")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise ValueError("must hold one line of printable text")
    return text
