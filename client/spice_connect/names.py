"""What a person may write for a VM, a host and a run directory; all else is refused here."""

import re

from spice_connect.errors import UsageError

#: As in docs/protocol.md: never an option, never a path.
VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Some of them, as fnmatch(3) reads it.
VM_PATTERN = re.compile(r"[A-Za-z0-9._*?!\[\]-]{1,64}")

#: OpenSSH's own rules (readconf.c ssh_valid_hostname, ssh_valid_ruser), held here too since
#: clients before 9.6 lack them and would hand such a name to a ProxyCommand's shell. The
#: backslash stays out of hosts only: DOMAIN\user is a user's name.
HOST_NAME = re.compile(r"(?!-)[^\s\x00-\x1f\x7f-\x9f'`\"$\\;&<>|(){},@]+")
USER_NAME = re.compile(r"(?!-)[^\s\x00-\x1f\x7f-\x9f'`\"$;&<>|(){}]+(?<!\\)")

#: ssh expands `%` and `${}` in a forwarding, splits it at `:` and eats backslashes.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
MAX_SOCKET_PATH = 107  # sun_path holds 108 bytes, one of them the final NUL


#: In the place of a host: this machine is the KVM host itself. No host can have this name.
LOCAL = "local:"


def check_vm(name: str) -> str:
    if not VM_NAME.fullmatch(name):
        raise UsageError(
            f'"{name}" is not a VM\'s name',
            "a name is letters, digits, dots, dashes and underscores; spice-connect lists yours",
        )
    return name


def check_pattern(pattern: str) -> str:
    if not VM_PATTERN.fullmatch(pattern):
        raise UsageError(
            f'"{pattern}" is not a VM\'s name or a pattern of some',
            'as in "vm1" or "lab-*"; in a pattern, * is any text and ? any character',
        )
    return pattern


def check_host(host: str) -> str:
    user, at, name = host.rpartition("@")
    if not HOST_NAME.fullmatch(name) or (at and not USER_NAME.fullmatch(user)):
        raise UsageError(
            f'"{host}" is not a host',
            f"a host is HOST, USER@HOST, a Host alias of your ssh configuration, or {LOCAL}",
        )
    return host


def check_run_dir(path: str) -> str:
    if not PLAIN_PATH.fullmatch(path) or len(tunnel_socket(path)) > MAX_SOCKET_PATH:
        raise UsageError(
            f'"{path}" is not a run directory',
            "give an absolute path of letters, digits and ./_+- that leaves room for a socket",
        )
    return path


def check_gate(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f'"{path}" is not the gate', "give its absolute path")
    return path


def control_socket(run_dir: str) -> str:
    """Where the gate asks the broker; on the host itself only."""
    return f"{run_dir}/control.sock"


def tunnel_socket(run_dir: str) -> str:
    """The one socket on the host that sshd lets a person reach."""
    return f"{run_dir}/tunnel.sock"
