"""The first run: no host is configured, so it is asked for, and kept if the person likes."""

import json
import os
import stat
import sys

from spice_connect.config import user_file
from spice_connect.files import replace
from spice_connect.names import check_host
from spice_connect.ui.terminal import Terminal


def ask_host(terminal: Terminal) -> str:
    """Empty if nothing was typed. Only for a terminal that is attended."""
    typed = _ask("host: ")
    if not typed:
        return ""
    host, file = check_host(typed), user_file()
    if _ask(f"keep it in {_short(file)}? [Y/n] ").lower() in {"", "y", "yes"}:
        try:
            keep_host(host, file)
        except OSError as error:
            terminal.tell(f"cannot keep it: {error.strerror}")
    return host


def _short(file: str) -> str:
    home = os.path.expanduser("~/")
    return f"~/{file.removeprefix(home)}" if file.startswith(home) else file


def keep_host(host: str, file: str) -> None:
    """Into a configuration that names no host yet; all it says stays. At once whole."""
    file = os.path.realpath(file)  # a link, as into a collection of dot files, stays one
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    text, mode = _existing(file)
    # A JSON string is one of TOML too. First: at the end it might be part of a table.
    line = f"host = {json.dumps(host, ensure_ascii=False)}\n"
    replace(file, line.encode() + text, mode=mode, durable=True)


def _existing(file: str) -> tuple[bytes, int]:
    try:
        with open(file, "rb") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return b"", 0o600


def _ask(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
