"""All that a person reads: one line each, lower case, no full stop, a hint on a line of its own.

Results go to stdout, everything else to stderr. Quiet unless there is something to say.
"""

import contextlib
import os
import re
import signal
import sys
import unicodedata
from typing import TextIO

from spice_connect.errors import ClientError, Interrupted

#: What would move the cursor, colour the screen, break the line or turn the text around:
#: control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls.
#: Lone surrogates are no text at all, and cannot be written anywhere.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
MAX_SHOWN = 1000


def clean(text: str) -> str:
    """Text from elsewhere, made safe to print on one line of a terminal."""
    shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return UNSAFE.sub("?", shown)


def encodable(text: str) -> str:
    """As an argument of a command; the locale may lack a character."""
    encoding = sys.getfilesystemencoding()
    return text.encode(encoding, "replace").decode(encoding)


class Terminal:
    def __init__(self, *, quiet: bool = False, verbosity: int = 0) -> None:
        """`quiet`: nothing but results and failures. `verbosity`: 1 shows our details, too, 2 and
        more also ssh's.
        """
        self.quiet, self.verbosity = quiet, verbosity
        fd = _fd(sys.stderr)
        self._line = StatusLine(fd) if is_capable(fd) else None

    def result(self, text: str) -> None:
        """What was asked for. Its reader may be a program that waits for it."""
        self.show("")
        try:
            print(text, flush=True)
        except BrokenPipeError:  # as if SIGPIPE, which Python ignores, had ended us
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Interrupted(signal.SIGPIPE) from None

    def show(self, status: str) -> None:
        """In a line that changes, and goes with an empty one: what we are about."""
        if self._line and not (self.quiet or self.verbosity):
            self._line.show(clean(status))

    def inform(self, reason: str, hint: str = "") -> None:
        """What is no failure."""
        if not self.quiet:
            self.tell(reason, hint)

    def tell(self, reason: str, hint: str = "") -> None:
        self._stderr(f"spice-connect: {clean(reason)}")
        if hint:
            self._stderr(f"hint: {clean(hint)}")

    def fail(self, error: ClientError) -> None:
        self.tell(error.reason, error.hint)

    def detail(self, text: str) -> None:
        if self.verbosity:
            self._stderr(f"spice-connect: {clean(text)}")

    def end_line(self) -> None:
        if self._line:
            self._line.end_line()

    def is_attended(self) -> bool:
        """Whether somebody is there who reads, and can answer."""
        return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)

    def can_pick(self) -> bool:
        """Whether somebody can be shown something that changes, and answer with any key."""
        return self.is_attended() and _is_terminal(sys.stdout) and self._line is not None

    def pass_on(self, line: bytes) -> None:
        """One of ssh's own, unchanged."""
        if self.quiet:
            return
        if self._line:
            self._line.tell(clean(line.decode(errors="replace").rstrip().expandtabs()))
            return
        with contextlib.suppress(OSError):
            os.write(_fd(sys.stderr), line)

    def _stderr(self, line: str) -> None:
        if self._line:
            self._line.tell(line)
            return
        # The terminal may be gone (that may be why we end): nobody is left to tell.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def _is_terminal(stream: TextIO | None) -> bool:
    """Python has no stream at all where it was closed when we were started."""
    return stream is not None and stream.isatty()


def _fd(stream: TextIO | None) -> int:
    """-1: it has none."""
    try:
        return stream.fileno() if stream else -1
    except OSError:  # a stand-in
        return -1


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
    """How to write on a terminal on which ssh may ask something at any moment.

    The line with the cursor is ssh's, always, since nobody can know whether it has a prompt there.
    What we tell is put in above that line, and what we are about stands below it. Each is one
    write, so neither order nor timing can spoil a prompt, or what a person types. The escapes are
    those of the VT102, which every terminal has but "dumb" (ECMA-48, and DECSC and DECRC).
    """

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


#: A message of ssh's that begins so, and what we are about from then on. "": ssh may write on the
#: terminal itself now (a question about the host's key and the server's banner come after the
#: first; a question of many lines may come after the second), or we are there.
SIGNS = {
    "Remote protocol version": "",
    "Authentications that can continue": "logging in to {place}",
    "Next authentication method: keyboard-interactive": "",
    "Authenticated to": "asking for {asked}",
    "Connection to port": "",  # the viewer's, into the tunnel
}


class Progress:
    """Where we are until the desktop is seen: connecting, logging in, asking, opening the viewer.

    ssh says how it gets on, in its log (`LogVerbose`, see ssh.py). An ssh that does not say it, or
    no ssh at all, leaves the line as it was, and the line is gone when the server has answered.
    """

    def __init__(self, terminal: Terminal, place: str, asked: str) -> None:
        self._terminal = terminal
        self._names = {"place": place, "asked": asked}
        self._hears_ssh = False

    def begin(self) -> None:
        self._terminal.show("connecting to {place}".format(**self._names))

    def hear(self, message: str) -> bool:
        """One of ssh's; whether it was a sign."""
        self._hears_ssh = True
        about = next((about for sign, about in SIGNS.items() if message.startswith(sign)), None)
        if about is not None:
            self._terminal.show(about.format(**self._names))
        return about is not None

    def open_viewer(self) -> None:
        """Until ssh says that it is there; who would not be told does not begin."""
        self._terminal.show("opening the viewer" if self._hears_ssh else "")

    def end(self) -> None:
        self._terminal.show("")
