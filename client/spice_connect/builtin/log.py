"""What ssh itself has to say, in OpenSSH's words: spice_connect/failures.py reads them."""

import os

from spice_connect.terminal import clean


class SshError(Exception):
    """No connection; its text says why."""


class Log:
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(self, text: str) -> None:
        show(self._fd, text)


def show(fd: int, text: str) -> None:
    """Line by line, as ssh ends them: the terminal may be in raw mode."""
    lines = "".join(f"{clean(line)}\r\n" for line in text.splitlines())
    os.write(fd, lines.encode(errors="replace"))
