"""The ssh command line: one plain ssh of the person's own, told only what we rely on.

Where both say something, the command line wins over ssh_config(5) (the first value counts); what
is not named here (user, port, keys, agent, jump hosts, known hosts, prompts) stays theirs.
"""

import re
import subprocess
from collections.abc import Sequence

from spice_connect.config import Config
from spice_connect.errors import UnavailableError
from spice_connect.names import tunnel_socket

OPTIONS = {
    # Our own connection, always: one SSH connection is one session at one VM.
    "ControlMaster": "no",
    "ControlPath": "none",
    # Not "yes": a LocalForward of the person's own that is in use already, or a RemoteForward that
    # the server refuses, would end us. Our own forwarding is looked at when the server is ready.
    "ExitOnForwardFailure": "no",
    "ClearAllForwardings": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
    # A dead network is noticed in a minute, so that no window stays frozen.
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
}

#: Both since OpenSSH 8.7. An older ssh refuses unknown options; and IgnoreUnknown would help, but
#: take the place of the IgnoreUnknown in the person's own configuration.
OPTIONS_SINCE_8_7 = {"SessionType": "default", "ForkAfterAuthentication": "no"}

VERSION = re.compile(r"OpenSSH[A-Za-z_]*_(\d+)\.(\d+)")


def open_command(config: Config, vm: str, *, local: str, take_over: bool) -> list[str]:
    forwarding = f"{local}:{tunnel_socket(config.run_dir)}"
    request = ["open", "--json", *(["--take-over"] if take_over else []), vm]
    return [*_base(config.ssh), "-L", forwarding, "--", config.host, *request]


def list_command(config: Config) -> list[str]:
    return [*_base(config.ssh), "--", config.host, "list", "--json"]


def _base(ssh: Sequence[str]) -> list[str]:
    """What every one of our connections has: no tty, no agent, no X11."""
    options = OPTIONS | (OPTIONS_SINCE_8_7 if _version(ssh) >= (8, 7) else {})
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return [*ssh, "-T", "-a", "-x", *words]


def _version(ssh: Sequence[str]) -> tuple[int, int]:
    """OpenSSH's version (3 ms); (0, 0) for another ssh, which then gets the oldest options."""
    try:
        answer = subprocess.run(
            [*ssh, "-V"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=10,
            check=False,
        )
    except OSError as error:
        raise UnavailableError(
            f"cannot start {ssh[0]}: {error.strerror}", "install OpenSSH's client"
        ) from error
    except subprocess.TimeoutExpired:
        return 0, 0
    found = VERSION.search(answer.stderr.decode(errors="replace"))
    return (int(found[1]), int(found[2])) if found else (0, 0)
