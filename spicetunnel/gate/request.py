"""What a person may ask of the gate: one anchored grammar, docs/protocol.md section 1."""

import re

from spicetunnel.common.errors import UsageError
from spicetunnel.common.names import VM_NAME

_REQUEST = re.compile(
    rf"""
      (?P<open>open)
      [ ](?P<open_json>--json[ ])?(?P<take_over>--take-over[ ])?(?P<vm>{VM_NAME.pattern})
    | (?P<list>list)(?P<list_json>[ ]--json)?
    | (?P<whoami>whoami)
    | (?P<help>help)
    """,
    re.VERBOSE | re.ASCII,
)

HELP = """\
open [--json] [--take-over] VM   hold a session at VM; forward a local socket to the tunnel
list [--json]                    the VMs you may use
whoami                           who this server takes you for
help                             this text
"""


class Request:
    """One parsed request. `vm` is empty except for `open`."""

    __slots__ = ("json", "take_over", "verb", "vm")

    def __init__(self, verb: str, vm: str = "", json: bool = False, take_over: bool = False):
        self.verb = verb
        self.vm = vm
        self.json = json
        self.take_over = take_over


def parse(command: str) -> Request:
    """The request in `command`, sshd's SSH_ORIGINAL_COMMAND. Raises UsageError."""
    if command == "":
        return Request("list")
    found = _REQUEST.fullmatch(command)
    if found is None:
        raise UsageError(
            f"not a command of this gateway: {shorten(command)}",
            "the commands are: open VM, list, whoami, help",
        )
    groups = found.groupdict()
    verb = next(name for name in ("open", "list", "whoami", "help") if groups[name])
    return Request(
        verb,
        vm=groups["vm"] or "",
        json=bool(groups["open_json"] or groups["list_json"]),
        take_over=bool(groups["take_over"]),
    )


def shorten(command: str) -> str:
    """`command` in quotes, ASCII, escaped and cut: safe on a terminal and in a log."""
    escaped = ascii(command[:200])[1:-1]
    return f"'{escaped}'" if len(escaped) <= 60 else f"'{escaped[:57]}...'"
