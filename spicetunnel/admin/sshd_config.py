"""`spicetunnel sshd-config`: the drop-in for sshd, and checks of the values put into it."""

import re
from pathlib import PurePosixPath

import click

from spicetunnel.admin.keyfiles import KEYS_DIRECTORY
from spicetunnel.admin.keys import GATE
from spicetunnel.common.errors import UsageError
from spicetunnel.common.protocol import RUN_DIR, TUNNEL_SOCKET
from spicetunnel.policy.fields import SOCKET_PATH_BYTES
from spicetunnel.policy.problems import quote

# A path ends up in sshd's configuration and, after 'exec', in a command line for the person's login
# shell, whichever that is. So it holds no character with a meaning in either.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+-]+)+")

# A name ends up in a Match line. sshd takes it for a list of patterns (match.c): what has a meaning
# there cannot be escaped. Other characters can stand in double quotes. How a quote or a backslash
# escapes the next one depends on sshd's version (misc.c, strdelim and argv_split); before any other
# character, a backslash is one.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_IN_PATTERNS = {",": "a ',' separates patterns", "*": "'*' is a wildcard", "?": "'?' is a wildcard"}
_AT_START = {"!": "a '!' at the start negates", "#": "a '#' begins a comment", "-": "of the '-'"}
_LONGEST_NAME = 255

_GROUP_MATCH = """\
Match Group {group}
    # Whatever is asked for (shell, command, sftp), the gate runs. With 'exec' no
    # shell stays: the broker knows a session by sshd being the gate's parent.
    ForceCommand exec {command}
"""

_ACCOUNT_MATCH = """\
Match User {account}
    # No ForceCommand: it would win over the key's own command, which names the
    # person. So no key may come in that has none: only those that these print,
    # and no password. A key in the account's own files does not count.
    AuthenticationMethods publickey
    # For the file, sshd would take "none" for one in the home. And these three come
    # first: sshd 9.2 drops a principals command that stands behind a keys command.
    AuthorizedPrincipalsFile /dev/null
    AuthorizedPrincipalsCommand {tool} principals {options} %k
    AuthorizedPrincipalsCommandUser nobody
    AuthorizedKeysFile none
    AuthorizedKeysCommand {tool} keys --dir {keys_dir} {options} %t %k
    AuthorizedKeysCommandUser nobody
"""

_TEMPLATE = """\
# spicetunnel: what {whom} may do over SSH.
# Made by 'spicetunnel sshd-config'; another group, gate or directory: see its -h.
#
# sshd takes the first value it finds: a Match block in an earlier file wins over
# this one. 'sshd -T -C user=NAME,host=HOST,addr=ADDRESS' shows what holds.

# Users could set LD_PRELOAD or BASH_ENV for the gate's shell. Holds for every
# account: sshd does not take it in a Match block.
PermitUserEnvironment no

{who}
    # ForceCommand does not gate forwarding; these lines do: one socket, local to
    # remote only. 'no' or 'none' in place of 'local' would close that socket too,
    # as would a global 'DisableForwarding yes'.
    DisableForwarding no
    AllowTcpForwarding local
    AllowStreamLocalForwarding local
    PermitOpen [{run_dir}/{socket}]:*

    # No way in the other direction.
    PermitListen none
    GatewayPorts no

    # Each of these is a door of its own that the lines above leave open.
    X11Forwarding no
    AllowAgentForwarding no
    PermitTunnel no
    PermitTTY no

    # Keep out what would run before the gate: ~/.ssh/rc, and a BASH_ENV sent by
    # the client. (AcceptEnv knows no 'none', so name what nobody sends.) A login
    # shell still reads the person's own file: bash ~/.bashrc, zsh ~/.zshenv, tcsh
    # ~/.tcshrc, fish its config.fish. That gains them nothing.
    PermitUserRC no
    AcceptEnv SPICETUNNEL_ACCEPTS_NONE

    # One session a connection; a second 'open' is told so by the gate, where a
    # limit of 1 would be silence.
    MaxSessions 4

    # A client that vanished frees its VM's seat within a minute.
    ClientAliveInterval 15
    ClientAliveCountMax 3

# So that this block ends here, whatever is read next.
Match all
"""


def render(group: str, gate: str, run_dir: str) -> str:
    """The drop-in for people who each have an account.

    Raises UsageError for a value that sshd or a shell could misread.
    """
    _check_places(gate, run_dir)
    command = gate if run_dir == RUN_DIR else f"{gate} --run-dir {run_dir}"
    who = _GROUP_MATCH.format(group=_quoted("--group", group), command=command)
    return _rendered(f"the members of {group}", who, run_dir)


def render_shared(account: str, gate: str, run_dir: str, keys_dir: str) -> str:
    """The drop-in for an account that many people share, told apart by key or certificate.

    Raises UsageError for a value that sshd or a shell could misread.
    """
    _check_places(gate, run_dir)
    _check_path("--keys-dir", keys_dir)
    who = _ACCOUNT_MATCH.format(
        account=_quoted("--shared", account),
        tool=PurePosixPath(gate).with_name("spicetunnel"),
        options=f"--gate {gate} --run-dir {run_dir}",
        keys_dir=keys_dir,
    )
    return _rendered(f"those who share the account {account}", who, run_dir)


def _rendered(whom: str, who: str, run_dir: str) -> str:
    return _TEMPLATE.format(whom=whom, who=who, run_dir=run_dir, socket=TUNNEL_SOCKET)


def _quoted(option: str, name: str) -> str:
    """The name as it can stand in a Match line. Raises UsageError if it cannot."""
    if why := _unwritable(name):
        reason = f"{option} cannot be {quote(name)} in sshd's configuration: {why}"
        raise UsageError(reason, "choose another, or give it another name in the directory")
    return name if _PLAIN_NAME.fullmatch(name) else f'"{name}"'


def _unwritable(name: str) -> str:
    """Why no Match line can have this name; empty if one can."""
    if not name or len(name) > _LONGEST_NAME:
        return f"a name has 1 to {_LONGEST_NAME} characters"
    if not name.isprintable() or name != name.strip():
        return "a space at an end, or what nobody can see, is easily lost there"
    if '"' in name or "\\\\" in name or "\\'" in name or name.endswith("\\"):
        return "versions of sshd differ in how they read its quotes or backslashes"
    if name[0] in _AT_START:
        return _AT_START[name[0]]
    return next((why for each, why in _IN_PATTERNS.items() if each in name), "")


def _check_places(gate: str, run_dir: str) -> None:
    _check_path("--gate", gate)
    _check_path("--run-dir", run_dir)
    if len(f"{run_dir}/{TUNNEL_SOCKET}") > SOCKET_PATH_BYTES:
        longest = SOCKET_PATH_BYTES - len(f"/{TUNNEL_SOCKET}")
        reason = f"--run-dir is longer than {longest} characters"
        raise UsageError(reason, "no Unix socket's path can be longer than 107 bytes")


def _check_path(option: str, path: str) -> None:
    if not _PATH.fullmatch(path):
        reason = f"{option} must be a plain absolute path, not {quote(path)}"
        raise UsageError(
            reason, "use letters, digits, '.', '_', '+' and '-' between single slashes"
        )


@click.command("sshd-config")
@click.option("--group", default="spicetunnel-users", show_default=True, help="Who is confined.")
@click.option("--gate", default=GATE, show_default=True, help="The gate.")
@click.option("--run-dir", default=RUN_DIR, show_default=True, help="The broker's directory.")
@click.option(
    "--shared", metavar="USER", help="Instead of a group: an account that many people share."
)
@click.option("--keys-dir", default=KEYS_DIRECTORY, show_default=True, help="With --shared.")
def sshd_config(group: str, gate: str, run_dir: str, shared: str | None, keys_dir: str) -> None:
    """Print the drop-in for sshd_config.d."""
    if shared is not None:
        text = render_shared(shared, gate, run_dir, keys_dir)
    else:
        text = render(group, gate, run_dir)
    click.echo(text, nl=False)
