"""The command line: the one that tunnel/ssh.py builds, and of ssh(1) no more than that."""

import getopt
import re
from typing import NamedTuple

from spice_connect.tunnel.builtin.log import SshError
from spice_connect.tunnel.ssh import OPTIONS, PROGRESS_SINCE_8_7

#: What is done here; all the other options of ours forbid what is never done here.
NUMBERS = {"ServerAliveInterval", "ServerAliveCountMax", "ConnectTimeout"}
FIXED = {key: value for key, value in OPTIONS.items() if key not in NUMBERS}

#: To say how we get on.
MARKS = [f"{key}={value}" for key, value in PROGRESS_SINCE_8_7.items()]

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
    marks: bool = False
    verbosity: int = 0


def parse(arguments: list[str]) -> Wanted:
    try:
        options, rest = getopt.getopt(arguments, "TaxvE:F:L:o:p:")
    except getopt.GetoptError as error:
        raise SshError(f"the built-in one does not know {' '.join(arguments)}: {error}") from error
    if len(rest) < 2:
        raise SshError("a host and a command, please")
    flags = {flag: value for flag, value in options if flag != "-o"}
    near, _, far = flags.get("-L", "").rpartition(":")
    settings = [value for flag, value in options if flag == "-o"]
    numbers, batch = _settings(settings)
    return Wanted(
        place=_place(rest[0], flags.get("-p")),
        command=" ".join(rest[1:]),
        log=flags.get("-E", "/dev/stderr"),
        config=flags.get("-F"),
        batch=batch,
        near=near,
        far=far,
        numbers=numbers,
        marks=any(setting in MARKS for setting in settings),
        verbosity=sum(flag == "-v" for flag, _ in options),
    )


def _place(destination: str, port: str | None) -> Place:
    """A plain IPv6 address has its port beside it; an ssh:// URI has it within."""
    if destination.startswith("ssh://"):
        return _jump(destination)
    user, _, host = destination.rpartition("@")
    return Place(host, user or None, _number(port) if port else None)


def _number(port: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise SshError(f"Bad port '{port}'")
    return int(port)


def _settings(given: list[str]) -> tuple[dict[str, int], bool]:
    numbers, batch = {}, False
    for setting in given:
        key, _, value = setting.partition("=")
        if key in NUMBERS and value.isascii() and value.isdigit():
            numbers[key] = int(value)
        elif setting == "BatchMode=yes":
            batch = True
        elif setting not in MARKS and FIXED.get(key) != value:
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
