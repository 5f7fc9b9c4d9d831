"""The ssh command line: the user's own ssh, with only the options that we rely on.

The command line overrides ssh_config(5). What is not named here (user, port, keys, agent, jump
hosts, known hosts, prompts) comes from the user's configuration.
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
from spice_connect.names import split_port, tunnel_socket

OPTIONS = {
    # A connection of our own: one SSH connection is one session at one VM.
    "ControlMaster": "no",
    "ControlPath": "none",
    # Not "yes": the user's configuration may have a LocalForward whose port is in use, or a
    # RemoteForward that the server refuses. Our own forwarding is checked when the server is ready.
    "ExitOnForwardFailure": "no",
    "ClearAllForwardings": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
    # A dead network is noticed within a minute, so that no window stays frozen.
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
}

#: For OpenSSH 8.7 and later; an older ssh refuses unknown options. IgnoreUnknown would help, but
#: override the IgnoreUnknown of the user's configuration.
OPTIONS_SINCE_8_7 = {"SessionType": "default", "ForkAfterAuthentication": "no"}
#: The functions whose messages ssh reports at any LogLevel of the user's: its progress (Progress in
#: ui/terminal.py), its steps (steps.py), and why it fails (causes.py).
REPORTING = (
    # Not all of sshconnect.c: the warning that a key was added stays the user's to silence.
    *("ssh.c:*resolve*", "sshconnect.c:ssh_*connect*", "sshconnect.c:warn_changed*"),
    *("sshconnect2.c:*auth*", "sshconnect2.c:verify*"),
    *("authfile.c:*", "kex.c:*exchange*", "packet.c:*fatal*", "clientloop.c:server_alive*"),
    *("channels.c:*_port_*", "channels.c:channel_new*", "channels.c:*open_failure*"),
)
REPORTING_SINCE_8_7 = {"LogVerbose": ",".join(REPORTING)}
#: An older ssh says at this level why it fails; the user's may be QUIET.
REPORTING_BEFORE = {"LogLevel": "INFO"}

#: If packets are dropped, another try is better than a long wait. The first try has the user's own.
RETRY_OPTIONS = {"ConnectTimeout": "15"}

#: For several hosts at once: no prompts, and no long wait for a dead host.
SILENT_OPTIONS = {"BatchMode": "yes", "ConnectTimeout": "10"}
LIST = ("list", "--json")
MENU = ("menu", "--json")

#: An IPv6 address in brackets, which may have a zone, and a port. ssh takes no brackets, and in its
#: URIs no such address (misc.c parse_uri), so the port becomes an option.
IPV6_IN_BRACKETS = re.compile(
    r"(?:ssh://)?(?P<user>[^@]+@)?\[(?P<address>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
#: Instead of a program: the one in tunnel/builtin.
BUILT_IN = "built-in"
BUILT_IN_NEEDS = "pip install 'spicetunnel[asyncssh]'"

VERSION = re.compile(r"OpenSSH[A-Za-z_]*_(\d+)\.(\d+)")


class Opening(NamedTuple):
    """A request to open a VM; see docs/protocol.md, section 1."""

    vm: str
    take_over: bool = False
    wait: bool = False
    keep: bool = False
    replace: str = ""

    def again(self, session: str) -> "Opening":
        """The same request, to replace our own session of this id, and nobody else's."""
        return self._replace(take_over=False, replace=session)

    def words(self) -> list[str]:
        flags = {"--take-over": self.take_over, "--wait": self.wait, "--keep": self.keep}
        replace = ["--replace", self.replace] if self.replace else []
        return ["open", "--json", *(flag for flag, on in flags.items() if on), *replace, self.vm]


class Talk(NamedTuple):
    """The path of ssh's log, and how much it writes (the Terminal's verbosity)."""

    log: str
    verbosity: int = 0


def open_command(
    config: Config, opening: Opening, *, near: str, talk: Talk, retry: bool
) -> list[str]:
    """`near`: the local end as -L takes it. `retry`: after an outage. Raises UnavailableError."""
    forwarding = f"{near}:{tunnel_socket(config.run_dir)}"
    options = _words(RETRY_OPTIONS) if retry else []
    ssh = [*_base(config.ssh, talk), *options, "-L", forwarding]
    return [*ssh, *_destination(config.host), *opening.words()]


def list_command(config: Config, *, talk: Talk, may_prompt: bool) -> list[str]:
    """Raises UnavailableError."""
    options = [] if may_prompt else _words(SILENT_OPTIONS)
    return [*_base(config.ssh, talk), *options, *_destination(config.host), *LIST]


def menu_command(config: Config, *, near: str, talk: Talk, may_prompt: bool) -> list[str]:
    """The list, and the tunnel for the VM that will be picked. Raises UnavailableError."""
    options = [] if may_prompt else _words(SILENT_OPTIONS)
    ssh = [*_base(config.ssh, talk), *options, "-L", f"{near}:{tunnel_socket(config.run_dir)}"]
    return [*ssh, *_destination(config.host), *MENU]


def can_serve_menu(config: Config) -> bool:
    """Whether one login may serve both the list and the VM that is picked."""
    # The built-in ssh passes no stdin on. A port would be open to everybody while the user reads.
    return config.is_local or not (config.viewer_port or _is_built_in(config.ssh))


def _destination(host: str) -> list[str]:
    if found := IPV6_IN_BRACKETS.fullmatch(host):
        port = ["-p", found["port"]] if found["port"] else []
        return [*port, "--", f"{found['user'] or ''}{found['address']}"]
    name, number = split_port(host)
    return ["-p", number, "--", name] if number else ["--", name]


def _base(ssh: tuple[str, ...], talk: Talk) -> list[str]:
    """The start of all command lines: no tty, no agent, no X11, a log of its own."""
    if _is_built_in(ssh):
        return [*_built_in(), *ssh[1:], *_common(talk, OPTIONS)]
    is_new = _version(ssh) >= (8, 7)
    more = OPTIONS_SINCE_8_7 | REPORTING_SINCE_8_7 if is_new else REPORTING_BEFORE
    return [*ssh, *_common(talk, OPTIONS | more)]


def reports_login(ssh: tuple[str, ...]) -> bool:
    """Whether this ssh says when it has logged in. Raises UnavailableError."""
    return _is_built_in(ssh) or _version(ssh) >= (8, 7)


def _common(talk: Talk, options: dict[str, str]) -> list[str]:
    verbose = ["-v"] * (talk.verbosity - 1)
    return ["-T", "-a", "-x", *verbose, "-E", talk.log, *_words(options)]


def _is_built_in(ssh: Sequence[str]) -> bool:
    """Whether the user chose it, or has the default on a machine without OpenSSH.

    Raises UnavailableError if it is needed but asyncssh is missing.
    """
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
    from importlib.util import find_spec  # noqa: PLC0415 - rarely used

    return find_spec("asyncssh") is not None


def _built_in() -> list[str]:
    # -P: no modules from the current directory.
    return [
        sys.executable,
        "-I" if sys.flags.isolated else "-P",
        "-m",
        "spice_connect.tunnel.builtin",
    ]


def _words(options: dict[str, str]) -> list[str]:
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


@functools.cache  # one call for all hosts of a list, and for all tries after an outage
def _version(ssh: tuple[str, ...]) -> tuple[int, int]:
    """OpenSSH's version (3 ms); (0, 0) for another ssh, which gets the oldest options only."""
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
