"""What is wrong with a map, in words an admin can act on."""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from spicetunnel.common.errors import SpicetunnelError

_QUOTED_LIMIT = 60
_LINE_LIMIT = 500  # characters of a line that is shown
_SOME = 20  # words in a hint


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


def near(word: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """A hint for an unknown word: the closest known one; empty if none is close.

    `cutoff`: as `difflib.get_close_matches` has it, 1 for the same word.
    """
    words = word[:60], word[:60].lower()
    found = (difflib.get_close_matches(each, known, n=1, cutoff=cutoff) for each in words)
    close = next(filter(None, found), None)
    return f"did you mean {quote(close[0])}?" if close else ""


def suggest(word: str, known: Collection[str], called: str) -> str:
    """As `near`; if none is close, the known words after `called`, but no more than 20."""
    return near(word, known) or _some(known, called)


def _some(known: Collection[str], called: str) -> str:
    shown = [printable(each) for each in islice(known, _SOME)]
    more = [f"and {len(known) - _SOME} more"] if len(known) > _SOME else []
    return f"{called}: {', '.join([*shown, *more])}"


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake and its place.

    `line` and `column` count from 1. Both are 0 if the mistake concerns the whole file; `column` is
    0 if it concerns the whole line. `text` is that line, as it stands in the file; empty if there
    is none, or if it is too long to help.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    text: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        return ":".join([self.file, *(str(each) for each in (self.line, self.column) if each)])

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def with_lines(problems: Iterable[Problem], texts: Mapping[str, bytes]) -> list[Problem]:
    """The problems, each with its line; `texts` are the files by their names in problems."""
    rows: dict[str, list[str]] = {}
    shown: list[Problem] = []
    for each in problems:
        if each.file not in rows:
            text = texts.get(each.file, b"").decode("utf-8-sig", "replace")
            rows[each.file] = text.split("\n")
        lines = rows[each.file]
        row = lines[each.line - 1].rstrip() if 0 < each.line <= len(lines) else ""
        shown.append(replace(each, text=row if len(row) <= _LINE_LIMIT else ""))
    return shown


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
