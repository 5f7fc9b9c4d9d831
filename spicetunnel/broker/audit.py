"""The audit log: one JSON object a line, for each decision and each channel.

ASCII only: json escapes every newline, control character and terminal escape that a client
or a VM could have put into a value.
"""

import ipaddress
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from spicetunnel.common.errors import SpicetunnelError

_MAX_TEXT = 500
REPEAT_SPAN = 5.0  # seconds that equal refusals share a line
_KINDS = 32  # different refusals of one uid that have lines of their own within that time
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.:-]{1,15})?")


_Kind = tuple[str, str, object]  # event, reason, session


class Audit:
    """If the log cannot be written, running sessions still end in order, and none begins."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._repeated: dict[object, dict[_Kind, _Repeated]] = {}  # by uid
        self._lost = 0  # lines since the last one that was written

    def write(self, event: str, **fields: object) -> None:
        """Write one line: the time in UTC, the event, and those fields that are not None."""
        kept = {key: _cut(value) for key, value in fields.items() if value is not None}
        try:
            self._print({"event": event, **kept})
        except OSError:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.write("fault", reason=f"{lost} lines of the log before this one were lost")

    def repeated(self, event: str, reason: str, **fields: object) -> None:
        """Write a refusal that somebody may cause without end; `fields` has their `uid`.

        The first of equal ones (event, reason, session) has a line at once, and the others are
        counted in a line by `tell_repeated`: so nobody fills the log, or has journald drop another
        person's lines.
        """
        uid = fields.get("uid")
        kinds = self._repeated.setdefault(uid, {})
        kind = (event, reason, fields.get("session"))
        if kind not in kinds and len(kinds) >= _KINDS:
            reason = "for many reasons"
            kind, fields = (event, reason, None), {"uid": uid}
        if kind in kinds:
            kinds[kind].more += 1
            return
        line = {**fields, "reason": reason}
        kinds[kind] = _Repeated(self._clock(), event, line)
        self.write(event, **line)

    def tell_repeated(self) -> None:
        """Write how many more there were, of those whose last line is some seconds old."""
        now = self._clock()
        for uid, kinds in list(self._repeated.items()):
            for kind, last in list(kinds.items()):
                if now - last.since < REPEAT_SPAN:
                    continue
                if last.more:
                    self.write(last.event, **last.line, more=last.more)
                    kinds[kind] = _Repeated(now, last.event, last.line)
                else:
                    del kinds[kind]
            if not kinds:
                del self._repeated[uid]

    def require(self) -> None:
        """Raises SpicetunnelError if the last line could not be written."""
        if self._lost:
            raise SpicetunnelError(
                "the server cannot write its log", "tell the admin of this server"
            )

    def _print(self, line: dict[str, object]) -> None:
        """Raises OSError."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"time": now, **line}, default=str)
        print(text, file=self._stream, flush=True)


@dataclass(slots=True)
class _Repeated:
    """A refusal, the line it had then, and how many more there were since."""

    since: float
    event: str
    line: dict[str, object]
    more: int = 0


def client_address(ssh_connection: str) -> str | None:
    """The client's address in sshd's SSH_CONNECTION, as the gate told it; None if malformed.

    The gate runs as the user, so this is the user's word.
    """
    first = ssh_connection.split(" ", 1)[0]
    if not _ADDRESS.fullmatch(first):  # Python takes anything for an IPv6 scope
        return None
    try:
        return str(ipaddress.ip_address(first))
    except ValueError:
        return None


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return value[:_MAX_TEXT] + "..."
    return value
