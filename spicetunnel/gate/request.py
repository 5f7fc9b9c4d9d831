"""What a person may ask of the gate: one anchored grammar, docs/protocol.md section 1."""

import re

from spicetunnel.common.errors import UsageError
from spicetunnel.common.names import SESSION_ID, VM_NAME

_REQUEST = re.compile(
    rf"""
      (?P<open>open)
      [ ](?P<open_json>--json[ ])?(?P<take_over>--take-over[ ])?(?P<wait>--wait[ ])?
      (?P<keep>--keep[ ])?(?:--replace[ ](?P<replace>{SESSION_ID.pattern})[ ])?
      (?P<vm>{VM_NAME.pattern})
    | (?P<list>list)(?P<list_json>[ ]--json)?
    | (?P<menu>menu)[ ](?P<menu_json>--json)
    | (?P<whoami>whoami)
    | (?P<help>help)
    """,
    re.VERBOSE | re.ASCII,
)

#: An `open` that lacks nothing but the VM.
_OPEN_WHAT = re.compile(
    rf"open(?: --json| --take-over| --wait| --keep| --replace {SESSION_ID.pattern})* ?", re.ASCII
)

HELP = """\
open [--json] [--take-over] [--wait] [--keep] [--replace ID] VM
                   hold a session at VM; forward a local socket to the tunnel
                   --take-over    take the seat from who has it, where your grant says so
                   --wait         wait for a VM that is off
                   --keep         stay when the VM stops, for its restart
                   --replace ID   take the seat from that session, if it is yours
list [--json]      the VMs you may use
menu --json        the same, then lines on stdin: 'list --json', and one 'open --json ... VM'
whoami             who this server takes you for
help               this text
"""


class Request:
    """One parsed request. Fields that do not belong to its verb are empty or false."""

    __slots__ = ("json", "keep", "replace", "take_over", "verb", "vm", "wait")

    def __init__(self, verb: str, groups: dict[str, str | None]) -> None:
        self.verb = verb
        self.vm = groups.get("vm") or ""
        self.json = any(groups.get(f"{each}_json") for each in ("open", "list", "menu"))
        self.take_over = bool(groups.get("take_over"))
        self.wait = bool(groups.get("wait"))
        self.keep = bool(groups.get("keep"))
        self.replace = groups.get("replace") or ""


def parse(command: str) -> Request:
    """The request in `command`, sshd's SSH_ORIGINAL_COMMAND. Raises UsageError."""
    if command == "":
        return Request("list", {})
    found = _REQUEST.fullmatch(command)
    if found is None and _OPEN_WHAT.fullmatch(command):
        raise UsageError("open needs a VM's name", "list shows the VMs that you may use; open VM")
    if found is None:
        raise UsageError(
            f"not a command of this gateway: {shorten(command)}",
            "the commands are: open VM, list, whoami, help",
        )
    groups = found.groupdict()
    verb = next(name for name in ("open", "list", "menu", "whoami", "help") if groups[name])
    return Request(verb, groups)


def shorten(command: str) -> str:
    """`command` quoted, escaped to ASCII and cut, so that it is safe on a terminal and in a log."""
    escaped = ascii(command[:200])[1:-1]
    return f"'{escaped}'" if len(escaped) <= 60 else f"'{escaped[:57]}...'"
