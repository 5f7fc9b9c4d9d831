"""The gate of this machine instead of ssh, where this machine is the KVM host itself.

The gate runs as a child of ours. The broker decides as over ssh, by what the kernel says of the
gate. It binds the session to the gate's parent, which is this process, and takes channels from the
processes below it: our viewer.
"""

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence

from spice_connect.config import Config
from spice_connect.errors import ClientError, LostError, ProtocolError, UnavailableError
from spice_connect.flood import Bounds
from spice_connect.names import control_socket, tunnel_socket
from spice_connect.tunnel.causes import saying
from spice_connect.tunnel.connection import FIRST_WORD, Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Terminal

#: Not passed on to the gate: in our environment they are about another session (the user may have
#: logged in to this host by ssh), or were set by the user.
OF_SSHD = ("SSH_CONNECTION", "SSH_ORIGINAL_COMMAND")


class LocalConnection(Connection):
    """The gate, instead of ssh."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        config: Config,
        words: Sequence[str],
        terminal: Terminal,
        log: SshLog,
        bounds: Bounds | None = None,
        *,
        takes_lines: bool = False,
    ) -> None:
        """`log` stays empty. Raises UnavailableError if there is no gate."""
        check_gate(config.gate)
        terminal.detail(f"asking this machine's gate: {shlex.join(words)}")
        self._gate = config.gate
        self._request = " ".join(words)  # they were checked: no spaces
        argv = [config.gate, "--run-dir", config.run_dir]
        local_end = LocalEnd(path=tunnel_socket(config.run_dir))
        log.steps.is_logged_in = True  # so that what the gate's stderr says is held back, too
        super().__init__(
            *(janitor, argv, config.place, terminal, log, local_end),
            bounds=bounds,
            takes_lines=takes_lines,
            first_word=FIRST_WORD,
        )

    def silence(self) -> LostError:
        return LostError(f"the gate on this machine said nothing within {FIRST_WORD:g} s")

    def _loss(self) -> ClientError:
        self._hear_last_words()
        if self._answered:
            return LostError("the gate on this machine ended")
        reason = f"{self._gate} does not answer like a spicetunnel gate"
        return ProtocolError(f"{reason} (exit status {self.status()}){saying(self._foreign)}")

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k not in OF_SSHD}
        environment["SSH_ORIGINAL_COMMAND"] = self._request
        # In its own process group, so that Ctrl-C and a closed terminal reach only us.
        return self._janitor.popen(
            argv,
            stdin=self._stdin,
            stdout=subprocess.PIPE,
            stderr=self._stderr.writer,
            own_group=True,
            environment=environment,
        )


def check_gate(program: str) -> None:
    if shutil.which(program) is None:
        raise UnavailableError(
            f"the gate {program} is not installed on this machine",
            'set gate = "/path/to/spicetunnel-gate" in the configuration, or a host to go there',
        )


def is_here(run_dir: str) -> bool:
    """Whether a broker runs on this machine."""
    try:
        return stat.S_ISSOCK(os.stat(control_socket(run_dir)).st_mode)
    except OSError:
        return False
