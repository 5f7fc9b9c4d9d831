"""All that a person reads: one line each, lower case, no full stop, a hint on a line of its own.

Results go to stdout, everything else to stderr. Quiet unless there is something to say.
"""

import contextlib
import os
import re
import signal
import sys
from typing import TextIO

from spice_connect.errors import ClientError, Interrupted
from spice_connect.ui.statusline import StatusLine, is_capable

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
