"""The names of VMs, hosts and run directories, and URIs made of them: what is valid.

The check functions return what they were given, and raise UsageError if it is not valid.
"""

import re
from typing import NamedTuple, NoReturn

from spice_connect.errors import UsageError

#: As in docs/protocol.md. It can be neither an option nor a path.
VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: A pattern for VM names, as in fnmatch(3).
VM_PATTERN = re.compile(r"[A-Za-z0-9._*?!\[\]-]{1,64}")

#: OpenSSH's own rules (readconf.c ssh_valid_hostname, ssh_valid_ruser). Clients before 9.6 lack
#: them and pass such a name to the shell of a ProxyCommand. A user name may have a backslash
#: (DOMAIN\user), a host name may not.
HOST_NAME = re.compile(r"(?!-)[^\s\x00-\x1f\x7f-\x9f'`\"$\\;&<>|(){},@]+")
USER_NAME = re.compile(r"(?!-)[^\s\x00-\x1f\x7f-\x9f'`\"$;&<>|(){}]+(?<!\\)")

#: `kvm:2222`. With more colons it is an IPv6 address, or a URI.
HOST_AND_PORT = re.compile(
    r"(?P<user>[^/]+@)?(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/@\[\]]+)):(?P<port>[0-9]+)"
)

#: ssh expands `%` and `${}` in a forwarding, splits it at `:` and eats backslashes.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
MAX_SOCKET_PATH = 107  # sun_path holds 108 bytes, one of them the final NUL


#: Instead of a host: this machine is the KVM host itself. No host can have this name.
LOCAL = "local:"

#: `spice-connect://[USER@]HOST[:PORT]/VM` on a web page; an IPv6 address is in brackets.
#: A stranger may have written the page. So the grammar is narrow, nothing is percent-decoded, and
#: the URI can hold nothing else: no option, no command, no run directory.
URI_SCHEME = "spice-connect"
URI_PREFIX = f"{URI_SCHEME}://"
URI_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")  # anne@ad.example, too
URI_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
MAX_PORT = 65535
URI_PORT = re.compile(r"[1-9][0-9]{0,4}")
#: Browsers and shells differ about these. DOMAIN\user can be written as user@domain, or stand as
#: `User` in the person's ssh configuration.
NOT_IN_URI = {
    "%": "a percent-encoding",
    "?": "a query",
    "#": "a fragment",
    "\\": "a backslash",
}


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
            "a host is [USER@]HOST[:PORT], a Host alias of your ssh configuration, or local:",
        )
    _, port = split_port(host)
    if port and not (URI_PORT.fullmatch(port) and int(port) <= MAX_PORT):
        raise UsageError(f'"{port}" is not a port', f"a port is a number from 1 to {MAX_PORT}")
    return host


def split_port(host: str) -> tuple[str, str]:
    """`alice@kvm:2222` as `alice@kvm` and `2222`; the port is empty if there is none.

    An IPv6 address with a port is in brackets, which ssh does not take.
    """
    found = HOST_AND_PORT.fullmatch(host)
    if not found:
        return host, ""
    return f"{found['user'] or ''}{found['address'] or found['name']}", found["port"]


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


class Target(NamedTuple):
    host: str  # as ssh takes it
    vm: str


def is_uri(word: str) -> bool:
    """Whether it is meant as a URI: no VM name has a colon."""
    return word.lower().startswith(f"{URI_SCHEME}:")


def parse_uri(uri: str) -> Target:
    """Raises UsageError."""
    if not uri.startswith(URI_PREFIX):
        _refuse_uri(uri, f"it does not begin with {URI_PREFIX}")
    for character, what in NOT_IN_URI.items():
        if character in uri:
            _refuse_uri(uri, f"{what} is not allowed")
    authority, _, vm = uri.removeprefix(URI_PREFIX).partition("/")
    if "/" in vm:
        _refuse_uri(uri, "the path continues after the VM")
    if not VM_NAME.fullmatch(vm):
        _refuse_uri(uri, f'"{vm}" is not a VM\'s name')
    return Target(_uri_destination(uri, authority), vm)


def _uri_destination(uri: str, authority: str) -> str:
    user, at, where = authority.rpartition("@")
    if ":" in user:
        _refuse_uri(uri, "a password is not allowed")
    if at and not URI_USER.fullmatch(user):
        _refuse_uri(uri, f'"{user}" is not a user\'s name')
    inside, bracket, rest = where.rpartition("]")  # an IPv6 address has colons of its own
    outside, colon, port = rest.partition(":")
    host = inside + bracket + outside
    if not (URI_HOST.fullmatch(host) or _is_ipv6(host)):
        _refuse_uri(uri, f'"{host}" is not a host')
    if not colon:
        return f"{user}{at}{host.strip('[]')}"
    if not URI_PORT.fullmatch(port) or int(port) > MAX_PORT:
        _refuse_uri(uri, f'"{port}" is not a port')
    # ssh's own way to say a port, since 7.7. There it takes the first '@' for the user's end.
    return f"ssh://{user.replace('@', '%40')}{at}{host}:{port}"


def _is_ipv6(host: str) -> bool:
    """An address in brackets. It has no zone, since percent signs are refused before."""
    import ipaddress  # noqa: PLC0415 - rarely used

    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return host.startswith("[") and host.endswith("]")


def _refuse_uri(uri: str, reason: str) -> NoReturn:
    raise UsageError(f'"{uri}" is not a valid URI: {reason}', f"{URI_PREFIX}[USER@]HOST[:PORT]/VM")
