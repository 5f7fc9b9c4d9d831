"""What the server says: JSON objects, one a line (docs/protocol.md, section 1).

Nothing of it is trusted: lines are bounded, types are checked, unknown events are ignored, and
what is no JSON (a banner, the noise of a startup file) is passed by.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from spice_connect.errors import ProtocolError

#: A list of a few hundred VMs with long titles fits.
MAX_LINE = 1 << 20

#: SPICE takes no longer one.
MAX_PASSWORD = 60

#: A session's, as `--replace` takes it.
SESSION_ID = re.compile(r"[0-9a-f]{8}")


class Ready(NamedTuple):
    title: str
    session: str = ""
    password: str = ""  # the VM's own; for the viewer's file, and nothing else


class Waiting(NamedTuple):
    """The VM is not there; `ready` or the end will come."""

    reason: str
    hint: str


class Notice(NamedTuple):
    reason: str
    hint: str


class Final(NamedTuple):
    """Refused, or ended by the server."""

    reason: str
    hint: str
    code: int


class Vms(NamedTuple):
    vms: list[dict[str, Any]]


class Noise(NamedTuple):
    """A line that is no event."""

    text: str


Event = Ready | Waiting | Notice | Final | Vms | Noise


class Lines:
    """Cuts a byte stream into lines; of one that is too long, only the start is kept."""

    def __init__(self) -> None:
        self._open = b""

    def feed(self, data: bytes) -> list[bytes]:
        *complete, self._open = (self._open + data).split(b"\n")
        # One byte over the limit is kept, to know such a line when its end comes.
        self._open = self._open[: MAX_LINE + 1]
        return complete


def parse(line: bytes) -> Event | None:
    """The event of one line; None for one this client does not know."""
    text = line.decode(errors="replace")
    message = _json_object(text) if len(line) <= MAX_LINE else None
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
    if found and not SESSION_ID.fullmatch(found):  # it goes into a command of ours
        raise _malformed("session")
    return found


def _password(message: dict[str, Any]) -> str:
    found = _text(message, "password")
    if not found.isprintable() or len(found) > MAX_PASSWORD:
        raise _malformed("password")
    return found


def _final(message: dict[str, Any], lowest: int) -> Final:
    code = message.get("code")
    # Over 125 are the shell's: not found, killed by a signal. bool is an int to Python.
    if type(code) is not int or not lowest <= code <= 125:
        raise _malformed("code")
    reason = _text(message, "reason") or "the server gave no reason"
    return Final(reason, _text(message, "hint"), code)


def _vms(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Each with its known keys as texts; others are left as they are, for --json."""
    vms = message.get("vms")
    if not isinstance(vms, list) or not all(isinstance(vm, dict) for vm in vms):
        raise _malformed("vms")
    known = ("name", "title", "state", "busy_by", "until", "next")
    return [vm | {key: _text(vm, key) for key in known} for vm in vms]


def _malformed(key: str) -> ProtocolError:
    return ProtocolError(
        f'the server\'s answer is malformed: "{key}"', "are client and server of about one age?"
    )


_EVENTS: dict[str, Callable[[dict[str, Any]], Event]] = {
    "ready": lambda message: Ready(
        _text(message, "title"), _session_id(message), _password(message)
    ),
    "waiting": lambda message: Waiting(_text(message, "reason"), _text(message, "hint")),
    "notice": lambda message: Notice(_text(message, "reason"), _text(message, "hint")),
    "refused": lambda message: _final(message, lowest=1),
    "end": lambda message: _final(message, lowest=os.EX_OK),
    "vms": lambda message: Vms(_vms(message)),
}
