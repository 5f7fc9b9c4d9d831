"""What ssh itself has to say, in OpenSSH's words: spice_connect/tunnel/failures.py reads them."""

import logging
import os

from spice_connect.ui.terminal import clean

LEVELS = (logging.CRITICAL, logging.INFO, logging.DEBUG)


class SshError(Exception):
    """No connection; its text says why."""


class Log:
    def __init__(self, path: str, *, marks: bool, verbosity: int) -> None:
        """`marks`: how we get on is wanted, too (ui/progress.py). `verbosity`: from 1 on
        also what asyncssh has to say.
        """
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._marks = marks
        talk = logging.getLogger("asyncssh")
        talk.addHandler(_Talk(self))
        talk.setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])

    def say(self, text: str) -> None:
        show(self._fd, text)

    def mark(self, message: str) -> None:
        """As OpenSSH says what its LogVerbose names: with its place in the source in front."""
        if self._marks:
            self.say(f"debug1: builtin.c:mark():1 (pid={os.getpid()}): {message}")


class _Talk(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.say(f"debug1: {self.format(record)}")


def show(fd: int, text: str) -> None:
    """Line by line, as ssh ends them: the terminal may be in raw mode."""
    lines = "".join(f"{clean(line)}\r\n" for line in text.splitlines())
    os.write(fd, lines.encode(errors="replace"))
