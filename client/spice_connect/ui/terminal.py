"""All output on the terminal: messages, the status line, and the progress shown in it.

A message is one line, lower case, without a full stop; its hint is a line of its own. Results go to
stdout, everything else to stderr.
"""

import contextlib
import os
import re
import signal
import sys
import unicodedata
from typing import TextIO

from spice_connect.errors import ClientError, Interrupted

#: Characters that move the cursor, change colours, break the line or reverse the text: control
#: characters (C0, DEL, C1), line and paragraph separators, bidirectional controls. And lone
#: surrogates, which cannot be encoded.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
MAX_SHOWN = 1000


def clean(text: str) -> str:
    """Make untrusted text safe to print on one line of a terminal."""
    shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return UNSAFE.sub("?", shown)


def encodable(text: str) -> str:
    """Make text usable as an argument of a command: the locale may lack a character."""
    encoding = sys.getfilesystemencoding()
    return text.encode(encoding, "replace").decode(encoding)


class Terminal:
    def __init__(self, *, quiet: bool = False, verbosity: int = 0) -> None:
        """`quiet`: results and failures only. `verbosity`: 1 adds our details, 2 ssh's."""
        self.quiet, self.verbosity = quiet, verbosity
        self.asks_in_windows = False  # ssh's questions, not ours
        fd = _fd(sys.stderr)
        self._line = StatusLine(fd) if is_capable(fd) else None
        self._is_open = False  # `pass_through` has written a line without its end

    def result(self, text: str) -> None:
        """Print a result, at once: a program may wait for it. Raises Interrupted on SIGPIPE."""
        self.show("")
        try:
            print(text, flush=True)
        except BrokenPipeError:  # end as by SIGPIPE, which Python ignores
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Interrupted(signal.SIGPIPE) from None

    def show(self, status: str) -> None:
        """Show what we are doing in the status line; an empty text removes the line."""
        if self._line and not (self.quiet or self.verbosity):
            self._line.show(clean(status))

    def inform(self, reason: str, hint: str = "") -> None:
        """Print a message that is not a failure; not if `quiet`."""
        if not self.quiet:
            self.tell(reason, hint)

    def tell(self, reason: str, hint: str = "") -> None:
        """Print a message, even if `quiet`."""
        self._stderr(f"spice-connect: {clean(reason)}")
        if hint:
            self._stderr(f"hint: {clean(hint)}")

    def fail(self, error: ClientError) -> None:
        self.tell(error.reason, error.hint)

    def detail(self, text: str) -> None:
        if self.verbosity:
            self._stderr(f"spice-connect: {clean(text)}")

    def end_line(self) -> None:
        """Start a new line."""
        if self._line:
            self._line.end_line()

    def is_attended(self) -> bool:
        """Whether there is a user who can read messages and answer."""
        return self.asks_in_windows or (_is_terminal(sys.stdin) and _is_terminal(sys.stderr))

    def can_pick(self) -> bool:
        """Whether the terminal can show a menu and read single keys."""
        return self.is_attended() and _is_terminal(sys.stdout) and self._line is not None

    def pass_on(self, line: bytes) -> None:
        """Print a line of ssh's log."""
        if self.quiet:
            return
        if self._line:
            self._line.tell(clean(line.decode(errors="replace").rstrip().expandtabs()))
            return
        with contextlib.suppress(OSError):
            os.write(_fd(sys.stderr), line)

    def pass_through(self, chunk: bytes) -> None:
        """Print what ssh writes on its stderr, even if `quiet`: it may ask for something.

        ssh may have a prompt on the cursor's line by now, so whole lines are put in above. A line
        without an end may be a prompt itself, of a ProxyCommand: it goes where the cursor is.
        """
        while chunk:
            line, end, chunk = chunk.partition(b"\n")
            if self._line and end and not self._is_open:
                shown = line.decode(errors="replace").rstrip().expandtabs()
                self._line.tell(clean(shown))
                continue
            self._is_open = not end
            with contextlib.suppress(OSError):
                os.write(_fd(sys.stderr), line + end)

    def _stderr(self, line: str) -> None:
        if self._line:
            self._line.tell(line)
            return
        # The terminal may be gone, which may be why we end.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def _is_terminal(stream: TextIO | None) -> bool:
    """Python has no stream (None) if it was closed when we were started."""
    return stream is not None and stream.isatty()


def _fd(stream: TextIO | None) -> int:
    """The descriptor of a stream; -1 if it has none."""
    try:
        return stream.fileno() if stream else -1
    except OSError:  # not a real file, as in tests
        return -1


CLEAR = "\x1b[J"  # clear from the cursor on: only the status line is below it
SAVE, RESTORE = "\x1b7", "\x1b8"
DIM = "\x1b[2m"

#: ssh may write over the status line; the end of a longer one would stay visible.
MAX_STATUS = 60


def is_capable(fd: int) -> bool:
    """Whether a status line is possible."""
    return os.isatty(fd) and os.environ.get("TERM", "dumb") != "dumb"


def size(fd: int) -> tuple[int, int]:
    """Columns and rows; 80 and 24 if the terminal does not say."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24


class StatusLine:
    """Writes on a terminal on which ssh may show a prompt at any time.

    The line with the cursor belongs to ssh, which may have a prompt there. Messages are inserted
    above that line; the status line is below it. Each is one write, so neither order nor timing can
    damage a prompt, or what the user types. The escape sequences are those of the VT102, which
    every terminal except "dumb" knows (ECMA-48, and DECSC and DECRC).
    """

    def __init__(self, fd: int) -> None:
        """`fd`: a terminal for which `is_capable` is true."""
        self._fd = fd
        self._status = ""

    def tell(self, line: str) -> None:
        """Insert a message above the cursor's line. `line` must be clean."""
        columns, rows = self._size()
        height = min(_height(line, columns), rows - 2)
        if height < 1:  # the terminal is too small
            self._write(f"{line}\r\n")
            return
        put_in = f"{_room(height)}{SAVE}\r\x1b[{height}L{line}{RESTORE}\x1b[{height}B"
        self._write(CLEAR + put_in + self._below())

    def show(self, status: str) -> None:
        """Set the status line; an empty text removes it. Does nothing in the background."""
        status = status if self._is_ours() else ""
        if status != self._status:
            self._status = status
            self._write(CLEAR + self._below())

    def end_line(self) -> None:
        """End the cursor's line."""
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
        # The terminal may be gone, which may be why we end.
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(sys.stderr.encoding, "backslashreplace"))


def _room(lines: int) -> str:
    """Make room for lines below the cursor's, by scrolling if needed; do not move the cursor."""
    return "\x1bD" * lines + f"\x1b[{lines}A"


def _height(line: str, columns: int) -> int:
    cells = sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)
    return max(1, -(-cells // columns))


#: The start of a message of ssh, and the status to show from then on. Empty if ssh may now write on
#: the terminal itself (after the first: a question about the host key, the server's banner; after
#: the third: questions of many lines), or when the viewer is connected.
SIGNS = {
    "Remote protocol version": "",
    "Authentications that can continue": "logging in to {place}",
    "Next authentication method: keyboard-interactive": "",
    "Authenticated to": "asking for {asked}",
    "Connection to port": "",  # of the viewer, to the tunnel
}


class Progress:
    """Shows the progress in the status line, from connecting to the viewer.

    ssh reports its steps in its log (`LogVerbose`, see ssh.py). If it cannot, or there is no ssh,
    the status stays the same until the server has answered.
    """

    def __init__(self, terminal: Terminal, place: str, asked: str) -> None:
        self._terminal = terminal
        self._names = {"place": place, "asked": asked}
        self._hears_ssh = False

    def begin(self) -> None:
        self._terminal.show("connecting to {place}".format(**self._names))

    def hear(self, message: str) -> bool:
        """Take a message of ssh; return whether it was a sign of progress."""
        self._hears_ssh = True
        about = next((about for sign, about in SIGNS.items() if message.startswith(sign)), None)
        if about is not None:
            self._terminal.show(about.format(**self._names))
        return about is not None

    def open_viewer(self) -> None:
        """Shown until the viewer connects. Skipped if ssh cannot report progress."""
        self._terminal.show("opening the viewer" if self._hears_ssh else "")

    def end(self) -> None:
        self._terminal.show("")
