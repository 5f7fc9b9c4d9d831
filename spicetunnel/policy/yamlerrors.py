"""What a mistake in YAML's syntax means to an admin: in which words, where, and how to cure it.

And which lines it spoils: the reader leaves those out, and reads the rest for further mistakes.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from spicetunnel.policy.problems import printable, quote


class Mark(Protocol):
    """A position as both of PyYAML's parsers give it: counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Mistake(NamedTuple):
    """`line` and `column` count from 0."""

    line: int
    column: int
    message: str
    hint: str


QUOTE_IT: Final = "put text that starts with a special character in quotes"
TOO_DEEP: Final = ("nested deeper than 16 levels", "a map needs no more than 8")

#: libyaml's most frequent errors: our message, and a hint.
#: In a hint, {} is the line where the unreadable part starts.
_SYNTAX: Final = {
    "mapping values are not allowed in this context": (
        "a ':' may not stand here",
        "check the indentation; put text with ': ' in it in quotes",
    ),
    "could not find expected ':'": ("a ':' is missing", "write 'key: value'"),
    "did not find expected key": ("a key should stand here", "check the indentation"),
    "did not find expected '-' indicator": (
        "a list entry should stand here",
        "check the indentation; each entry starts with '- '",
    ),
    "did not find expected ',' or ']'": ("a ',' or ']' is missing", "the list starts at line {}"),
    "did not find expected ',' or '}'": ("a ',' or '}' is missing", "the block starts at line {}"),
    "found unexpected end of stream": ("a closing quote is missing", "the text starts at line {}"),
    "did not find expected node content": (
        "a value, or the end of a list or block, is missing",
        "every '[' needs a ']', and every '{' a '}'",
    ),
    "found unknown escape character": (
        "this escape does not exist",
        "put text with a backslash in single quotes",
    ),
    "did not find expected alphabetic or numeric character": (
        "a value may not start with '*' or '&'",
        QUOTE_IT,
    ),
    # libyaml's own limit, about 1,000. It reads ahead, so it may reach that before we reach ours.
    "exceeded maximum nesting depth": TOO_DEEP,
    "did not find expected <document start>": (
        "this does not belong to what stands above",
        "check the indentation",
    ),
}
#: What a mistake in these spoils begins where they begin; the parser notices it later.
_LONG: Final = {
    "while scanning a quoted scalar",
    "while scanning a simple key",
    "while parsing a flow mapping",
    "while parsing a flow sequence",
}
_NO_SPACE = re.compile(r"\s*(?:- )?([A-Za-z][\w-]*):\S")
_NO_COLON = re.compile(r"\s*(?:- )?([A-Za-z][\w-]*)\s*")
_SHOWN: Final = 60  # characters of the map's text in a hint


def explain(error: Exception, rows: Sequence[str]) -> Mistake:
    """The mistake behind a parser's error in the text of these lines."""
    problem = getattr(error, "problem", None) or "unreadable"
    start, at = _marks(error, rows)
    is_late = problem == "could not find expected ':'" or not rows[at[0]].strip()
    if is_late and getattr(error, "context", None) in _LONG:
        at = start  # it was noticed on a later line, or at the end of the file
    indentation = rows[at[0]][: len(rows[at[0]]) - len(rows[at[0]].lstrip())]
    if "\t" in indentation:
        tab = indentation.index("\t")
        return Mistake(at[0], tab, "a tab stands in the indentation", "indent with spaces only")
    special = _special(problem, start, at, rows)
    if special:
        return special._replace(hint=printable(special.hint))
    message, hint = _SYNTAX.get(
        problem,
        (
            f"this is not YAML: {problem}",
            "keys, values and lists are all that a map needs: spicetunnel-map(5)",
        ),
    )
    return Mistake(*at, printable(message), hint.replace("{}", str(start[0] + 1)))


def _special(
    problem: str, start: tuple[int, int], at: tuple[int, int], rows: Sequence[str]
) -> Mistake | None:
    """The mistakes that are told by the text around them."""
    row = rows[at[0]]
    match problem:
        case "mapping values are not allowed in this context":
            return _colon(at, rows)
        case "did not find expected '-' indicator" if start[1] == at[1]:
            text = row.strip()[:_SHOWN]
            if text.startswith("-"):
                return Mistake(*at, "a space is missing after the '-'", f"write '- {text[1:]}'")
            return Mistake(*at, f"a '- ' is missing before {quote(text)}", f"write '- {text}'")
        case str() if "cannot start any token" in problem:
            character = row[at[1] : at[1] + 1]
            return Mistake(*at, f"a value may not start with {quote(character)}", QUOTE_IT)
    return None


def _colon(at: tuple[int, int], rows: Sequence[str]) -> Mistake:
    """A ':' where none may stand: after a value, or below a line that is no `key: value`."""
    message, hint = _SYNTAX["mapping values are not allowed in this context"]
    key, colon, value = rows[at[0]].partition(": ")
    if colon and len(key) + 1 < at[1]:
        shown = value.strip()[:_SHOWN]
        if '"' not in shown and "\\" not in shown:
            hint = f"put text with a ':' in it in quotes: {key.strip()}: \"{shown}\""
        return Mistake(*at, message, hint)
    above = next((n for n in range(at[0] - 1, -1, -1) if rows[n].strip()), at[0])
    column = len(rows[above]) - len(rows[above].lstrip())
    if found := _NO_SPACE.match(rows[above]):
        words = f"a space is missing after {quote(found[1] + ':')}", "write 'key: value'"
        return Mistake(above, column, *words)
    if found := _NO_COLON.fullmatch(rows[above]):
        words = f"a ':' is missing after {quote(found[1])}", "write 'key: value'"
        return Mistake(above, column, *words)
    return Mistake(*at, message, hint)


def spoiled(error: Exception, rows: Sequence[str]) -> range:
    """The lines to leave out, so that the rest can be read: the VM, or other entry of a top-level
    block, that the error is in.
    """
    start, at = _marks(error, rows)
    begin = start[0] if getattr(error, "context", None) in _LONG else at[0]
    begin = next((n for n in range(begin, -1, -1) if _indent(rows[n]) is not None), begin)
    top = next((n for n in range(begin, -1, -1) if _indent(rows[n]) == 0), begin)
    if top < begin:
        inner = [_indent(rows[n]) for n in range(top + 1, begin + 1)]
        depth = min(each for each in inner if each is not None)
        begin = max(n for n in range(top + 1, begin + 1) if _indent(rows[n]) == depth)
    return range(begin, _end(begin, rows))


def _end(begin: int, rows: Sequence[str]) -> int:
    """The line after the entry that begins there."""
    depth = _indent(rows[begin]) or 0
    for number in range(begin + 1, len(rows)):
        indent = _indent(rows[number])
        if indent is not None and indent <= depth:
            return number
    return len(rows)


def _indent(row: str) -> int | None:
    """None for a line that says nothing."""
    text = row.lstrip()
    return None if not text or text.startswith("#") else len(row) - len(text)


def _marks(error: Exception, rows: Sequence[str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the unreadable part starts, and where the parser noticed it."""
    context: Mark | None = getattr(error, "context_mark", None)
    mark: Mark | None = getattr(error, "problem_mark", None) or context
    return _inside(context or mark, rows), _inside(mark, rows)


def _inside(mark: Mark | None, rows: Sequence[str]) -> tuple[int, int]:
    # If the last line has no line end, libyaml puts the end of the file one line too far.
    return (min(mark.line, len(rows) - 1), mark.column) if mark else (0, 0)
