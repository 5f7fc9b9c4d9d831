"""What is wrong with a map, in words an admin can act on."""

import difflib
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from spicetunnel.common.errors import SpicetunnelError

_QUOTED_LIMIT = 60


def printable(text: str) -> str:
    """`text` on one line, with control and invisible characters spelled out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def quote(text: str) -> str:
    """Text from outside, safe to show: in quotes, printable, cut at 60 characters."""
    shown = printable(text[: _QUOTED_LIMIT + 1])
    if len(shown) > _QUOTED_LIMIT:
        shown = shown[: _QUOTED_LIMIT - 3] + "..."
    return f"'{shown}'"


def suggest(word: str, known: Collection[str], called: str) -> str:
    """A hint for an unknown word: the closest known one, or else all of them, after `called`."""
    close = difflib.get_close_matches(word[:60].lower(), known, n=1)
    return f"did you mean {quote(close[0])}?" if close else f"{called}: {', '.join(known)}"


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake and its place.

    `line` and `column` count from 1. Both are 0 if the mistake concerns the whole file; `column` is
    0 if it concerns the whole line.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    @property
    def place(self) -> str:
        return ":".join([self.file, *(str(each) for each in (self.line, self.column) if each)])

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class MapError(SpicetunnelError):
    """The map is refused; `problems` holds every reason, sorted by position."""

    exit_code = os.EX_CONFIG

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        first, *others = self.problems
        super().__init__(f"{first} (and {len(others)} more)" if others else str(first), first.hint)


class MapUnreadableError(MapError):
    """The map does not exist, or this user may not read it."""

    exit_code = os.EX_NOINPUT
