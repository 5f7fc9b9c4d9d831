"""The log of ssh: shown at once, and kept to explain why ssh ended.

It is a FIFO that `ssh -E` writes to. ssh's stderr stays the terminal, since ssh asks there for the
touch of a hardware key. So messages of ssh and text from the server (its banner) are kept apart.
"""

import itertools
import os
import re
from collections.abc import Callable

from spice_connect.tunnel.steps import Steps

CHUNK = 1 << 16
LAST_WORDS = 1 << 13  # bytes kept; the warning of a changed host key has 1 KB

#: A message from a part of ssh that LogVerbose names (log.c, sshlogv): it starts with its place in
#: the source and the process, "(pid=1)" or "(bin=ssh, uid=0, pid=1)". Some are errors.
MARKED = re.compile(rb"(debug\d: )?[\w.-]+\.c:\w+\(\):\d+ \([\w=, .-]*\): (.*\n)")
UNMARKED = re.compile(rb"(debug\d: )?(.*\n)", re.DOTALL)

#: Starts a line of the built-in ssh that is not for the person; see causes.py.
NAMING = b"cause: "

_numbers = itertools.count(1)


class SshLog:
    def __init__(
        self,
        directory: str,
        show: Callable[[bytes], None],
        hear: Callable[[str], bool],
        *,
        far: str = "",
        is_verbose: bool = False,
    ) -> None:
        """`directory`: the private one; the FIFO is removed with it.

        `show` is called with each line for the user. `hear` is called with each message that
        LogVerbose asked for, and returns whether it was a sign of progress. Signs of progress are
        not shown, nor debug messages, unless `is_verbose`. `far`: the server's end of our own
        forwarding. Raises OSError.
        """
        self.path = f"{directory}/log-{next(_numbers)}"
        os.mkfifo(self.path, 0o600)
        # Opened for writing too, so that it never ends and ssh can always open it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._show, self._hear, self._is_verbose = show, hear, is_verbose
        self.steps = Steps(far)
        self._said = self._open = b""

    def fileno(self) -> int:
        return self._fd

    def listen(self) -> None:
        """Read what is there; do not wait."""
        while chunk := self._read():
            *lines, self._open = (self._open + chunk).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
            self._open = self._open[-LAST_WORDS:]

    def text(self) -> str:
        """The last lines that were shown."""
        return self._said.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.unlink(self.path)

    def _take(self, line: bytes) -> None:
        marked = MARKED.fullmatch(line)
        level, plain = marked.groups(b"") if marked else UNMARKED.fullmatch(line).groups(b"")  # type: ignore[union-attr]
        message = plain.decode(errors="replace").rstrip()
        self.steps.hear(message)
        is_progress = bool(marked) and self._hear(message)
        if marked and (level or is_progress) and not self._is_verbose:
            return
        line = level + plain
        if not line.startswith(NAMING):
            self._show(line)
        self._said = (self._said + line)[-LAST_WORDS:]

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""
