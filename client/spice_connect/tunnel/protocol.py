"""The server's messages: one JSON object a line (docs/protocol.md, section 1).

They are not trusted: lines are bounded, types are checked, unknown events are ignored. What is not
JSON (a banner, the output of a start-up file) is skipped. It may lack a newline at its end, so that
an event stands behind it on the same line: older gates do not begin a line of their own.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from spice_connect.errors import ProtocolError
from spice_connect.names import MAX_SOCKET_PATH, PLAIN_PATH
from spice_connect.times import retold, spoken

#: A list of a few hundred VMs with long titles fits.
MAX_LINE = 1 << 20

#: SPICE allows no longer one.
MAX_PASSWORD = 60

#: Moments in one message, and limits of one right: the server has one, and some ten.
MAX_TIMES, MAX_LIMITS = 4, 16

#: As the server's `--replace` takes it.
SESSION_ID = re.compile(r"[0-9a-f]{8}")

#: How an event begins. A text within an event has its quotes escaped, so this is not in one.
START = '{"event":'


class Ready(NamedTuple):
    """`until`: when the right ends, an instant; empty for never. `limits`: what is not given."""

    title: str
    session: str = ""
    password: str = ""  # of the VM; only for the viewer's connection file
    tunnel: str = ""  # the server's socket; a server that names it says `attached`, too
    until: str = ""
    limits: tuple[str, ...] = ()

    def rights(self) -> str:
        """`view-only, until 17:00`; empty if there is no limit."""
        return ", ".join([*self.limits, *([f"until {spoken(self.until)}"] if self.until else [])])


class Attached(NamedTuple):
    """The viewer has got past the VM's main channel: its person sees the VM, or is about to."""


class Waiting(NamedTuple):
    """The VM does not run. `ready` or the end will follow."""

    reason: str
    hint: str


class Notice(NamedTuple):
    reason: str
    hint: str


class Final(NamedTuple):
    """The server refuses, or ends the session."""

    reason: str
    hint: str
    code: int


class Vms(NamedTuple):
    vms: list[dict[str, Any]]


class Noise(NamedTuple):
    """A line that is not an event."""

    text: str


Event = Ready | Attached | Waiting | Notice | Final | Vms | Noise


class Lines:
    """Splits a byte stream into lines. Of a line that is too long, only the start is kept."""

    def __init__(self) -> None:
        self._open = b""

    def feed(self, data: bytes) -> list[bytes]:
        *complete, self._open = (self._open + data).split(b"\n")
        # One byte more than the limit, so that `parse` sees that the line was too long.
        self._open = self._open[: MAX_LINE + 1]
        return complete

    def rest(self) -> bytes:
        """The last line, which has no end."""
        line, self._open = self._open, b""
        return line


def parse(line: bytes) -> Event | None:
    """The event of one line; None if it is unknown. Raises ProtocolError if it is malformed."""
    text = line.decode(errors="replace")
    message = None
    if len(line) <= MAX_LINE:
        message = _json_object(text) or _json_object(text[max(text.rfind(START), 0) :])
    if message is None:
        return Noise(text)
    make = _EVENTS.get(str(message["event"]))
    return make(message) if make else None


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and "event" in message else None


def _text(message: dict[str, Any], key: str) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise _malformed(key)
    return value


def _session_id(message: dict[str, Any]) -> str:
    found = _text(message, "session")
    if found and not SESSION_ID.fullmatch(found):  # it becomes a word of a command
        raise _malformed("session")
    return found


def _password(message: dict[str, Any]) -> str:
    found = _text(message, "password")
    if not found.isprintable() or len(found) > MAX_PASSWORD:
        raise _malformed("password")
    return found


def _tunnel(message: dict[str, Any]) -> str:
    found = _text(message, "tunnel")
    if found and not (PLAIN_PATH.fullmatch(found) and len(found) <= MAX_SOCKET_PATH):
        raise _malformed("tunnel")
    return found


def _spoken(message: dict[str, Any], key: str) -> str:
    """A text whose moments are those of the server's clock: in the user's local time."""
    times = message.get("times", {})
    if not isinstance(times, dict) or len(times) > MAX_TIMES:
        raise _malformed("times")
    if not all(words and isinstance(instant, str) for words, instant in times.items()):
        raise _malformed("times")
    return retold(_text(message, key), times)


def _limits(message: dict[str, Any]) -> list[str]:
    found = message.get("limits", [])
    if not isinstance(found, list) or len(found) > MAX_LIMITS:
        raise _malformed("limits")
    if not all(isinstance(word, str) for word in found):
        raise _malformed("limits")
    return found


def _final(message: dict[str, Any], lowest: int) -> Final:
    code = message.get("code")
    # Codes above 125 are for the shell: not found, killed by a signal. A bool is an int in Python.
    if type(code) is not int or not lowest <= code <= 125:
        raise _malformed("code")
    reason = _spoken(message, "reason") or "the server gave no reason"
    return Final(reason, _spoken(message, "hint"), code)


def _vms(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The VMs. Known keys are checked to be text, unknown keys are kept for --json."""
    vms = message.get("vms")
    if not isinstance(vms, list) or not all(isinstance(vm, dict) for vm in vms):
        raise _malformed("vms")
    known = ("name", "title", "state", "busy_by", "until", "next")
    return [vm | {key: _text(vm, key) for key in known} | _limits_of(vm) for vm in vms]


def _limits_of(vm: dict[str, Any]) -> dict[str, list[str]]:
    return {"limits": _limits(vm)} if "limits" in vm else {}


def _malformed(key: str) -> ProtocolError:
    return ProtocolError(
        f'the server\'s answer is malformed: "{key}"', "are client and server the same version?"
    )


_EVENTS: dict[str, Callable[[dict[str, Any]], Event]] = {
    "ready": lambda message: Ready(
        _text(message, "title"),
        _session_id(message),
        _password(message),
        _tunnel(message),
        _text(message, "until"),
        tuple(_limits(message)),
    ),
    "attached": lambda _message: Attached(),
    "waiting": lambda message: Waiting(_spoken(message, "reason"), _spoken(message, "hint")),
    "notice": lambda message: Notice(_spoken(message, "reason"), _spoken(message, "hint")),
    "refused": lambda message: _final(message, lowest=1),
    "end": lambda message: _final(message, lowest=os.EX_OK),
    "vms": lambda message: Vms(_vms(message)),
}
