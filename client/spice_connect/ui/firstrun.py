"""The first run: no host is configured, so ask for it.

It is saved if the user agrees, and not before it has answered: a mistyped one would stay.
"""

import codecs
import json
import os
import stat
import sys

from spice_connect.config import user_file
from spice_connect.files import replace
from spice_connect.names import check_host
from spice_connect.ui.terminal import Terminal
from spice_connect.ui.windows import Windows


class FirstRun:
    """The host that the user typed, and whether to keep it: only after it has answered."""

    def __init__(self, host: str, terminal: Terminal, file: str = "") -> None:
        """`file`: the configuration file to keep it in; empty for none."""
        self.host, self._terminal, self._file = host, terminal, file

    def answered(self) -> None:
        """To be called when a spicetunnel has answered on the host; again is no matter."""
        file, self._file = self._file, ""
        if not file:
            return
        try:
            keep_host(self.host, file)
        except OSError as error:
            self._terminal.tell(f"cannot keep it: {error.strerror}")


def ask_host(terminal: Terminal) -> FirstRun:
    """Its host is empty if none was typed. Only for a terminal with a user.

    Raises UsageError if it is not a valid host.
    """
    typed = _ask("host: ")
    if not typed:
        return FirstRun("", terminal)
    host, file = check_host(typed), user_file()
    keep = _ask(f"keep it in {_short(file)}? [Y/n] ").lower() in {"", "y", "yes"}
    return FirstRun(host, terminal, file if keep else "")


def ask_in_window(windows: Windows, terminal: Terminal) -> FirstRun:
    """As `ask_host`, for a user without a terminal. It is kept without another question."""
    typed = windows.ask("The host that your VMs run on: HOST, or USER@HOST").strip()
    return FirstRun(check_host(typed), terminal, user_file()) if typed else FirstRun("", terminal)


def _short(file: str) -> str:
    home = os.path.expanduser("~/")
    return f"~/{file.removeprefix(home)}" if file.startswith(home) else file


def keep_host(host: str, file: str) -> None:
    """Add the host to a configuration file that names none. Raises OSError."""
    file = os.path.realpath(file)  # keep a symbolic link, as into a directory of dot files
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    text, mode = _existing(file)
    # A JSON string is valid TOML. As the first line, because the last may be in a table.
    line = f"host = {json.dumps(host, ensure_ascii=False)}\n"
    replace(file, line.encode() + text.removeprefix(codecs.BOM_UTF8), mode=mode, durable=True)


def _existing(file: str) -> tuple[bytes, int]:
    try:
        with open(file, "rb") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return b"", 0o600


def _ask(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
