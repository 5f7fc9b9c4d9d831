"""The way that ssh goes: the jump hosts, which it reaches by a ProxyCommand that it makes itself.

ssh.c (main) makes `ssh [-l USER] [-p PORT] [-J EARLIER] [-F FILE] [-v] -W '[%h]:%p' LAST` of a
ProxyJump, and its log has that line. This is another ssh: its words are not in our log, and come by
stderr.
"""

import re
from typing import NamedTuple

JUMP = re.compile(r"(?:exec )?\S+ (?P<options>.*)-W '?\[\S+\]:\d+'? (?P<last>\S+)")
EARLIER = re.compile(r"(?:^| )-J (?P<value>\S+) ")
USER = re.compile(r"(?:^| )-l (?P<value>\S+) ")


class Way(NamedTuple):
    """`hops`: the jump hosts without users and ports; none for another ProxyCommand. `ssh`: the
    command with which the user can try the last of them.
    """

    hops: tuple[str, ...]
    ssh: str


def parse(command: str) -> Way:
    """The way by the ProxyCommand that ssh ran."""
    found = JUMP.fullmatch(command)
    if not found:
        return Way((), "")
    user, earlier = _value(USER, found["options"]), _value(EARLIER, found["options"])
    hops = [*(earlier.split(",") if earlier else ()), found["last"]]
    words = ["ssh", *(["-J", earlier] if earlier else ()), (f"{user}@" if user else "") + hops[-1]]
    return Way(tuple(map(_name, hops)), " ".join(words))


def _value(option: re.Pattern[str], options: str) -> str:
    found = option.search(options)
    return found["value"] if found else ""


def _name(hop: str) -> str:
    name = hop.removeprefix("ssh://").rpartition("@")[2]
    return name if name.count(":") != 1 else name.partition(":")[0]  # an IPv6 address has more
