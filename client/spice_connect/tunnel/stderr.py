"""The stderr of ssh: of ssh itself until the login, and from then on of what runs on the server.

Until the login it is passed on unchanged: the server's banner, the words of jump hosts and of a
ProxyCommand, and ssh's request to touch a hardware key, for which it must be a terminal if ours is
one (readpass.c, notify_start). It is not ssh's controlling terminal, so questions and answers do
not come by here: ssh opens /dev/tty for them. What the server's programs say after the login is
held back: it may be the words of another program than the gate, and means nothing to the person
before we have said what happened.
"""

import os
import tty
from collections.abc import Callable

CHUNK = 1 << 16
LAST_WORDS = 1 << 13  # bytes kept


class Stderr:
    def __init__(self, show: Callable[[bytes], None]) -> None:
        """`show` is called with what is to be passed on. Raises OSError."""
        if os.isatty(2):
            self._fd, self.writer = os.openpty()
            tty.setraw(self.writer)
        else:
            self._fd, self.writer = os.pipe()
        os.set_blocking(self._fd, False)
        self._show = show
        self._said = self._open = b""

    def fileno(self) -> int:
        return self._fd

    def started(self) -> None:
        """To be called when ssh has its own copy of `writer`."""
        os.close(self.writer)

    def listen(self, *, hold: bool) -> list[str] | None:
        """Read what is there; do not wait. Return the lines that are held back; None at its end."""
        chunk = self._read()
        if chunk == b"":
            return None
        if chunk and not hold:
            self._show(chunk)
        if chunk:
            self._said = (self._said + chunk)[-LAST_WORDS:]
        return self._lines(chunk or b"") if hold else []

    def text(self) -> str:
        """The last of all that was said."""
        return self._said.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)

    def _lines(self, chunk: bytes) -> list[str]:
        *lines, self._open = (self._open + chunk).split(b"\n")
        self._open = self._open[-LAST_WORDS:]
        return [line.decode(errors="replace") for line in lines]

    def rest(self) -> str:
        """A last line that was held back and has no end."""
        line, self._open = self._open, b""
        return line.decode(errors="replace")

    def _read(self) -> bytes | None:
        """None if there is nothing now, empty at the end."""
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # of a terminal that nobody holds any more: EIO
            return b""
