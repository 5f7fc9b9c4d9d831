"""How to write on a terminal on which ssh may ask something at any moment.

The line with the cursor is ssh's, always, since nobody can know whether it has a prompt there.
What we tell is put in above that line, and what we are about stands below it. Each is one write,
so neither order nor timing can spoil a prompt, or what a person types. The escapes are those of
the VT102, which every terminal has but "dumb" (ECMA-48, and DECSC and DECRC).
"""

import contextlib
import os
import sys
import unicodedata

CLEAR = "\x1b[J"  # from the cursor on: only our own line is below it
SAVE, RESTORE = "\x1b7", "\x1b8"
DIM = "\x1b[2m"

#: A longer one might show behind a shorter line that ssh writes over it.
MAX_STATUS = 60


def is_capable(fd: int) -> bool:
    return os.isatty(fd) and os.environ.get("TERM", "dumb") != "dumb"


def size(fd: int) -> tuple[int, int]:
    """Columns and rows; a terminal that has gone, or says 0, has the usual ones."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24


class StatusLine:
    def __init__(self, fd: int) -> None:
        """`fd`: of a capable terminal."""
        self._fd = fd
        self._status = ""

    def tell(self, line: str) -> None:
        """Above the cursor's line, for good. `line` is clean."""
        columns, rows = self._size()
        height = min(_height(line, columns), rows - 2)
        if height < 1:  # nothing fits above anything
            self._write(f"{line}\r\n")
            return
        put_in = f"{_room(height)}{SAVE}\r\x1b[{height}L{line}{RESTORE}\x1b[{height}B"
        self._write(CLEAR + put_in + self._below())

    def show(self, status: str) -> None:
        """What we are about; empty: nothing any more. Not in the background of a shell."""
        status = status if self._is_ours() else ""
        if status != self._status:
            self._status = status
            self._write(CLEAR + self._below())

    def end_line(self) -> None:
        """The cursor's: what is written next begins a new one."""
        self._write("\r\n")

    def _below(self) -> str:
        if not self._status:
            return ""
        columns, _ = self._size()
        shown = self._status[: min(columns - 1, MAX_STATUS)]
        dim = "" if os.environ.get("NO_COLOR") else DIM
        return f"{_room(1)}{SAVE}\x1b[B\r{dim}{shown}{RESTORE}"

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # not our controlling terminal
            return False

    def _size(self) -> tuple[int, int]:
        return size(self._fd)

    def _write(self, text: str) -> None:
        # The terminal may be gone (that may be why we end): nobody is left to tell.
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(sys.stderr.encoding, "backslashreplace"))


def _room(lines: int) -> str:
    """So many below the cursor's, if need be by scrolling; the cursor stays on its line."""
    return "\x1bD" * lines + f"\x1b[{lines}A"


def _height(line: str, columns: int) -> int:
    cells = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)
    return max(1, -(-cells // columns))
