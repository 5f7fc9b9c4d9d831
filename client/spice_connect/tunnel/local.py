"""On the KVM host itself there is no ssh: the server's gate runs as a child of our own.

The broker decides as over ssh, by what the kernel says of the gate. It binds the session to the
gate's parent, which is this process, and takes channels from what runs below it: our viewer.
"""

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence

from spice_connect.config import Config
from spice_connect.errors import ClientError, LostError, ProtocolError, UnavailableError
from spice_connect.names import control_socket, tunnel_socket
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Link
from spice_connect.tunnel.nearend import NearEnd
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Terminal

#: What our own environment says of sshd is not about this session: a person may have come to this
#: host by ssh, or have written it themselves.
OF_SSHD = ("SSH_CONNECTION", "SSH_ORIGINAL_COMMAND")


def is_here(run_dir: str) -> bool:
    """Whether this machine has a broker."""
    try:
        return stat.S_ISSOCK(os.stat(control_socket(run_dir)).st_mode)
    except OSError:
        return False


class LocalLink(Link):
    """The gate, in the place of one ssh."""

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        words: Sequence[str],
        terminal: Terminal,
        log: SshLog,
    ) -> None:
        """`log`: nobody writes into it here."""
        check_gate(config.gate)
        terminal.detail(f"asking this machine's gate: {shlex.join(words)}")
        self._gate = config.gate
        self._request = " ".join(words)  # each of them is checked, and has no space
        argv = [config.gate, "--run-dir", config.run_dir]
        near = NearEnd(path=tunnel_socket(config.run_dir))
        super().__init__(janitor, argv, config.place, terminal, log, near)

    def _loss(self) -> ClientError:
        if self._answered:
            return LostError("the gate on this machine ended")
        return ProtocolError(
            f"{self._gate} does not answer like a spicetunnel gate (exit status {self.status()})"
        )

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k not in OF_SSHD}
        environment["SSH_ORIGINAL_COMMAND"] = self._request
        # A group of its own: Ctrl-C and a closed terminal are ours to answer, as with ssh's.
        return self._janitor.popen(
            argv, stdout=subprocess.PIPE, own_group=True, environment=environment
        )


def check_gate(program: str) -> None:
    if shutil.which(program) is None:
        raise UnavailableError(
            f"the gate {program} is not installed on this machine",
            'set gate = "/path/to/spicetunnel-gate" in the configuration, or a host to go there',
        )
