"""A VM's password: read from its file when it is needed, and never kept.

It goes to the gate, and so to the person's client, inside SSH. It opens nothing by itself: the VM's
socket is the broker's. No log, no record and no message for people holds it.
"""

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.policy.password import read_password
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import Vm


def password_of(name: str, vm: Vm | None, audit: Audit) -> str:
    """The password; empty if the map names none. Raises SpicetunnelError, and logs why."""
    if vm is None or not vm.password_file:
        return ""
    try:
        return read_password(vm.password_file)
    except MapError as error:
        why = "; ".join(problem.message for problem in error.problems)
    audit.write("fault", vm=name, reason=f"password-file {vm.password_file} {why}")
    raise SpicetunnelError(
        f"the server cannot read the password of '{name}'", "tell the admin of this server"
    )
