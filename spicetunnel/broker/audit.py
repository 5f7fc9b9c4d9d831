"""The audit log: one JSON object a line, for each decision and each channel.

ASCII only: json escapes every newline, control character and terminal escape that a client
or a VM could have put into a value.
"""

import ipaddress
import json
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from spicetunnel.common.errors import SpicetunnelError

_MAX_TEXT = 500
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.:-]{1,15})?")


class Audit:
    """If the log cannot be written, running sessions still end in order, and none begins."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
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


def iso(moment: datetime | None) -> str:
    """The moment in ISO 8601 with the server's offset; empty for None."""
    return moment.astimezone().isoformat(timespec="seconds") if moment else ""


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
