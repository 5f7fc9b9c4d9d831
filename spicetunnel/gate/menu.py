"""`menu`: one login for a person who looks at their list first, and opens a VM of it then.

The client sends lines of the grammar of request.py on stdin: `list --json` as often as it wants a
fresh list, and then one `open`. Nothing else is read from stdin, ever.
"""

import os
import select
import sys
from collections.abc import Callable

from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.gate import request as grammar
from spicetunnel.gate.request import Request

MAX_LINE = 256  # bytes; an `open` with all options has 130
IDLE = 1800  # seconds without a line, and the gate leaves
_STDIN = 0


class IdleError(SpicetunnelError):
    exit_code = os.EX_TEMPFAIL


def serve_menu(show_list: Callable[[], object]) -> Request | None:
    """Show the list, and again for each line that asks for it; returns the `open`.

    None: the client left. Raises UsageError for any other line, IdleError.
    """
    lines = _Lines()
    while True:
        show_list()
        line = lines.next()
        if line is None:
            return None
        asked = grammar.parse(line)
        if asked.verb == "open" and asked.json:
            return asked
        if asked.verb != "list":
            raise UsageError("a menu takes 'list --json' and 'open --json ... VM'")


class _Lines:
    """Lines of stdin, by read(2): with a buffer, poll(2) would not see what is in it."""

    def __init__(self) -> None:
        self._left = b""
        self._poller = select.poll()
        self._poller.register(_STDIN, select.POLLIN)
        self._poller.register(sys.stdout.fileno(), 0)  # an error there: the client left

    def next(self) -> str | None:
        """The next line; None at the end. Raises UsageError if it is too long, IdleError."""
        while b"\n" not in self._left:
            if len(self._left) > MAX_LINE:
                raise UsageError("a line is too long")
            ready = {fd for fd, _ in self._poller.poll(IDLE * 1000)}
            if not ready:
                raise IdleError("you have not picked a VM for a long time", "connect again")
            chunk = os.read(_STDIN, MAX_LINE) if _STDIN in ready else b""
            if not chunk:
                return None
            self._left += chunk
        line, _, self._left = self._left.partition(b"\n")
        return line.decode("ascii", "replace")
