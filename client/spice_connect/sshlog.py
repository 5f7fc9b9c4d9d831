"""What ssh itself says, as it says it: shown at once, and kept to know why ssh ended.

A FIFO that `ssh -E` writes into. ssh's stderr stays the terminal: only there does it ask for the
touch of a hardware key, and what comes from the server (its banner) is told apart from ssh's word.
"""

import itertools
import os
from collections.abc import Callable

CHUNK = 1 << 16
LAST_WORDS = 1 << 13  # bytes kept; the long warning of a changed host key has 1 KB

_numbers = itertools.count(1)


class SshLog:
    def __init__(self, directory: str, show: Callable[[bytes], None]) -> None:
        """`directory`: a private one; what is left in it goes with it."""
        self.path = f"{directory}/log-{next(_numbers)}"
        os.mkfifo(self.path, 0o600)
        # For writing too: so it never ends, and ssh can always open it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._show, self._said = show, b""

    def fileno(self) -> int:
        return self._fd

    def listen(self) -> None:
        """Hear all there is; it does not wait."""
        while chunk := self._read():
            self._show(chunk)
            self._said = (self._said + chunk)[-LAST_WORDS:]

    def text(self) -> str:
        return self._said.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.unlink(self.path)

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""
