"""The command line: the one that spice_connect/ssh.py builds, and of ssh(1) no more than that."""

import getopt
import re
from typing import NamedTuple

from spice_connect.builtin.log import SshError
from spice_connect.ssh import OPTIONS

#: What is done here; all the other options of ours forbid what is never done here.
NUMBERS = {"ServerAliveInterval", "ServerAliveCountMax", "ConnectTimeout"}
FIXED = {key: value for key, value in OPTIONS.items() if key not in NUMBERS}

JUMP = re.compile(r"(?:ssh://)?(?:(.+)@)?(?:\[([^\]]+)\]|([^:@]+))(?::(\d+))?/?")


class Place(NamedTuple):
    """Somewhere to log in, as the person calls it; None: the configuration says."""

    host: str
    user: str | None = None
    port: int | None = None


class Wanted(NamedTuple):
    place: Place
    command: str
    log: str
    #: The person's own in the place of the usual files; "none": none at all.
    config: str | None
    batch: bool
    #: The near end, a path or HOST:PORT, and the path at the far end; or neither.
    near: str
    far: str
    numbers: dict[str, int]


def parse(arguments: list[str]) -> Wanted:
    try:
        options, rest = getopt.getopt(arguments, "TaxE:F:L:o:")
    except getopt.GetoptError as error:
        raise SshError(f"the built-in one does not know {' '.join(arguments)}: {error}") from error
    if len(rest) < 2:
        raise SshError("a host and a command, please")
    flags = {flag: value for flag, value in options if flag != "-o"}
    near, _, far = flags.get("-L", "").rpartition(":")
    numbers, batch = _settings([value for flag, value in options if flag == "-o"])
    user, _, host = rest[0].rpartition("@")
    return Wanted(
        place=Place(host, user or None),
        command=" ".join(rest[1:]),
        log=flags.get("-E", "/dev/stderr"),
        config=flags.get("-F"),
        batch=batch,
        near=near,
        far=far,
        numbers=numbers,
    )


def _settings(given: list[str]) -> tuple[dict[str, int], bool]:
    numbers, batch = {}, False
    for setting in given:
        key, _, value = setting.partition("=")
        if key in NUMBERS and value.isascii() and value.isdigit():
            numbers[key] = int(value)
        elif setting == "BatchMode=yes":
            batch = True
        elif FIXED.get(key) != value:
            raise SshError(f"the built-in one does not know -o {setting}")
    return numbers, batch


def jumps(proxy_jump: str) -> list[Place]:
    """The hosts of a ProxyJump, in the order in which one passes them."""
    return [_jump(hop) for hop in proxy_jump.split(",") if hop]


def _jump(hop: str) -> Place:
    found = JUMP.fullmatch(hop)
    if not found:
        raise SshError(f"Invalid ProxyJump: {hop}")
    user, bracketed, host, port = found.groups()
    return Place(bracketed or host, user, int(port) if port else None)
