"""What ssh itself says, as it says it: shown at once, and kept to know why ssh ended.

A FIFO that `ssh -E` writes into. ssh's stderr stays the terminal: only there does it ask for the
touch of a hardware key, and what comes from the server (its banner) is told apart from ssh's word.
"""

import itertools
import os
import re
from collections.abc import Callable

CHUNK = 1 << 16
LAST_WORDS = 1 << 13  # bytes kept; the long warning of a changed host key has 1 KB

#: A message from a part of ssh that LogVerbose names (log.c, sshlogv): with its place in the source
#: and the process, "(pid=1)" or "(bin=ssh, uid=0, pid=1)". Errors are among them.
MARKED = re.compile(rb"(debug\d: )?[\w.-]+\.c:\w+\(\):\d+ \([\w=, .-]*\): (.*\n)")

#: The built-in ssh's word for failures.py, not for the person.
CAUSE = b"cause: "

_numbers = itertools.count(1)


class SshLog:
    def __init__(
        self, directory: str, show: Callable[[bytes], None], hear: Callable[[str], bool]
    ) -> None:
        """`directory`: a private one; what is left in it goes with it.

        `show`: takes a line of ssh's. `hear`: takes a message that LogVerbose has ssh say; whether
        that was all it is for. The person gets what is no debugging, and was not heard.
        """
        self.path = f"{directory}/log-{next(_numbers)}"
        os.mkfifo(self.path, 0o600)
        # For writing too: so it never ends, and ssh can always open it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._show, self._hear = show, hear
        self._said = self._open = b""

    def fileno(self) -> int:
        return self._fd

    def listen(self) -> None:
        """Hear all there is; it does not wait."""
        while chunk := self._read():
            *lines, self._open = (self._open + chunk).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
            self._open = self._open[-LAST_WORDS:]

    def text(self) -> str:
        return self._said.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.unlink(self.path)

    def _take(self, line: bytes) -> None:
        if marked := MARKED.fullmatch(line):
            debugging, line = marked.groups()
            if self._hear(line.decode(errors="replace").rstrip()) or debugging:
                return
        if not line.startswith(CAUSE):
            self._show(line)
        self._said = (self._said + line)[-LAST_WORDS:]

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""
