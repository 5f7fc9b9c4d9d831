"""The ssh command line: one plain ssh of the person's own, told only what we rely on.

Where both say something, the command line wins over ssh_config(5) (the first value counts); what
is not named here (user, port, keys, agent, jump hosts, known hosts, prompts) stays theirs.
"""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from spice_connect.config import Config
from spice_connect.errors import UnavailableError
from spice_connect.install import how_to
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

#: All since OpenSSH 8.7 or before. An older ssh refuses unknown options; and IgnoreUnknown would
#: help, but take the place of the IgnoreUnknown in the person's own configuration.
OPTIONS_SINCE_8_7 = {"SessionType": "default", "ForkAfterAuthentication": "no"}
#: To say how it gets on, whatever its LogLevel; see Progress in ui/terminal.py.
PROGRESS_SINCE_8_7 = {"LogVerbose": "kex.c:*exchange*,sshconnect2.c:*auth*,channels.c:*_port_*"}

#: In a black hole, the next try is better than a long wait; the first one's is the person's own.
RETRY_OPTIONS = {"ConnectTimeout": "15"}

#: Several at once, and nobody waits for a host that is dead.
SILENT_OPTIONS = {"BatchMode": "yes", "ConnectTimeout": "10"}
LIST = ("list", "--json")

#: ssh's URIs have no place for an IPv6 address (misc.c parse_uri), so the port goes beside it.
IPV6_AND_PORT = re.compile(
    r"ssh://(?P<user>[^@]+@)?\[(?P<address>[0-9A-Fa-f:.]+)\]:(?P<port>[0-9]{1,5})"
)
#: In the place of a program: the one in tunnel/builtin.
BUILT_IN = "built-in"
BUILT_IN_NEEDS = "pip install 'spicetunnel[asyncssh]'"

VERSION = re.compile(r"OpenSSH[A-Za-z_]*_(\d+)\.(\d+)")


class Opening(NamedTuple):
    """What is asked for; see docs/protocol.md, section 1."""

    vm: str
    take_over: bool = False
    wait: bool = False
    keep: bool = False
    replace: str = ""

    def again(self, session: str) -> "Opening":
        """In the place of that session of ours; what somebody else has taken since is theirs."""
        return self._replace(take_over=False, replace=session)

    def words(self) -> list[str]:
        flags = {"--take-over": self.take_over, "--wait": self.wait, "--keep": self.keep}
        replace = ["--replace", self.replace] if self.replace else []
        return ["open", "--json", *(flag for flag, on in flags.items() if on), *replace, self.vm]


class Talk(NamedTuple):
    """Where ssh writes its log, and how much (Terminal's verbosity)."""

    log: str
    verbosity: int = 0


def open_command(
    config: Config, opening: Opening, *, near: str, talk: Talk, retry: bool
) -> list[str]:
    forwarding = f"{near}:{tunnel_socket(config.run_dir)}"
    options = _words(RETRY_OPTIONS) if retry else []
    ssh = [*_base(config.ssh, talk), *options, "-L", forwarding]
    return [*ssh, *_destination(config.host), *opening.words()]


def list_command(config: Config, *, talk: Talk, may_prompt: bool) -> list[str]:
    options = [] if may_prompt else _words(SILENT_OPTIONS)
    return [*_base(config.ssh, talk), *options, *_destination(config.host), *LIST]


def _destination(host: str) -> list[str]:
    found = IPV6_AND_PORT.fullmatch(host)
    if not found:
        return ["--", host]
    return ["-p", found["port"], "--", f"{found['user'] or ''}{found['address']}"]


def _base(ssh: tuple[str, ...], talk: Talk) -> list[str]:
    """What every one of our connections has: no tty, no agent, no X11, and a log of its own."""
    if _is_built_in(ssh):
        return [*_built_in(), *ssh[1:], *_common(talk, OPTIONS | _progress(talk))]
    newer = OPTIONS_SINCE_8_7 | _progress(talk) if _version(ssh) >= (8, 7) else {}
    return [*ssh, *_common(talk, OPTIONS | newer)]


def _common(talk: Talk, options: dict[str, str]) -> list[str]:
    verbose = ["-v"] * (talk.verbosity - 1)
    return ["-T", "-a", "-x", *verbose, "-E", talk.log, *_words(options)]


def _progress(talk: Talk) -> dict[str, str]:
    """Where nobody wants all that it says."""
    return {} if talk.verbosity else PROGRESS_SINCE_8_7


def _is_built_in(ssh: Sequence[str]) -> bool:
    """Where the person says so, or has said nothing else and this machine has no OpenSSH."""
    if ssh[0] == BUILT_IN and not _has_asyncssh():
        raise UnavailableError("the built-in ssh needs asyncssh", BUILT_IN_NEEDS)
    if ssh[0] == "ssh" and shutil.which("ssh") is None:
        if not _has_asyncssh():
            raise UnavailableError(
                "no ssh on this machine", f"{how_to('openssh-client')}, or {BUILT_IN_NEEDS}"
            )
        return True
    return ssh[0] == BUILT_IN


def _has_asyncssh() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - rarely wanted

    return find_spec("asyncssh") is not None


def _built_in() -> list[str]:
    # -P: the directory that we are started in must not choose its modules.
    return [
        sys.executable,
        "-I" if sys.flags.isolated else "-P",
        "-m",
        "spice_connect.tunnel.builtin",
    ]


def _words(options: dict[str, str]) -> list[str]:
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


@functools.cache  # else each host of a list, and each try after an outage, would ask again
def _version(ssh: tuple[str, ...]) -> tuple[int, int]:
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
