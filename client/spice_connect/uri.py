"""`spice-connect://[USER@]HOST[:PORT]/VM`: a link to a VM, as a page may have it.

An IPv6 address is a host in brackets.

Whoever wrote the page is a stranger. So the grammar is narrow, nothing is decoded, and nothing
but a user, a host, a port and a VM can be said: no option, no command, no run directory.
"""

import re
from typing import NamedTuple, NoReturn

from spice_connect.errors import UsageError
from spice_connect.names import VM_NAME

SCHEME = "spice-connect"
PREFIX = f"{SCHEME}://"
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
PORT = re.compile(r"[1-9][0-9]{0,4}")
#: Plain names need none of them.
NO_PLACE = {
    "%": "a percent-encoding",
    "?": "a query",
    "#": "a fragment",
    "\\": "a backslash",
}


class Target(NamedTuple):
    host: str  # as ssh takes it
    vm: str


def is_uri(word: str) -> bool:
    """No VM's name has a colon."""
    return word.lower().startswith(f"{SCHEME}:")


def parse(uri: str) -> Target:
    if not uri.startswith(PREFIX):
        _refuse(uri, f"it does not begin with {PREFIX}")
    for character, what in NO_PLACE.items():
        if character in uri:
            _refuse(uri, f"{what} has no place in it")
    authority, _, vm = uri.removeprefix(PREFIX).partition("/")
    if "/" in vm:
        _refuse(uri, "the path goes on behind the VM")
    if not VM_NAME.fullmatch(vm):
        _refuse(uri, f'"{vm}" is not a VM\'s name')
    return Target(_destination(uri, authority), vm)


def _destination(uri: str, authority: str) -> str:
    user, at, where = authority.rpartition("@")
    if ":" in user:
        _refuse(uri, "a password has no place in it")
    if at and not USER.fullmatch(user):
        _refuse(uri, f'"{user}" is not a user\'s name')
    inside, bracket, rest = where.rpartition("]")  # an IPv6 address has colons of its own
    outside, colon, port = rest.partition(":")
    host = inside + bracket + outside
    if not (HOST.fullmatch(host) or _is_ipv6(host)):
        _refuse(uri, f'"{host}" is not a host')
    if not colon:
        return f"{user}{at}{host.strip('[]')}"
    if not PORT.fullmatch(port) or int(port) > 65535:
        _refuse(uri, f'"{port}" is not a port')
    return f"ssh://{user}{at}{host}:{port}"  # ssh's own way to say a port, since 7.7


def _is_ipv6(host: str) -> bool:
    """In brackets. Without a zone, which is one machine's own: no percent sign gets here."""
    import ipaddress  # noqa: PLC0415 - rarely wanted

    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return host.startswith("[") and host.endswith("]")


def _refuse(uri: str, reason: str) -> NoReturn:
    raise UsageError(f'"{uri}" is not a link to a VM: {reason}', f"{PREFIX}[USER@]HOST[:PORT]/VM")
