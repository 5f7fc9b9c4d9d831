"""Reads a strict subset of YAML, with the position of every node.

Every scalar stays the text that was written, quoted or not: `no` is a user's name, `17:00` is not
1020. The tree is built from the parser's events: that gives the positions, bounds the depth, and
lets reading go on after a mistake if the rest still makes sense.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import yaml

from spicetunnel.policy.problems import Problem, quote


class Position(NamedTuple):
    """Counted from 1."""

    line: int
    column: int


class Mark(Protocol):
    """A position as both of PyYAML's parsers give it: counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Hole:
    """In place of a value that could not be read, which a Problem already reports."""


class Mapping(dict[str, "Node"]):
    """`marks` has, for each key, where the key and where its value starts."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        self.marks: dict[str, tuple[Mark, Mark]] = {}


class Sequence(list["Node"]):
    __slots__ = ("marks",)

    def __init__(self) -> None:
        self.marks: list[Mark] = []


Node = str | Mapping | Sequence | Hole
Path = tuple[str | int, ...]


@dataclass
class Document:
    """`root` has the one top node, or nothing if the file could not be read."""

    file: str
    root: Sequence = field(default_factory=Sequence)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, at: Position, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, *at, message, hint))

    def locate(self, path: Path) -> tuple[Position, Position]:
        """Where the key and the value at `path` start, or those of the nearest node above it."""
        node: Node = self.root[0]
        key = value = self.root.marks[0]
        for step in path:
            if isinstance(node, Mapping) and isinstance(step, str) and step in node:
                key, value = node.marks[step]
                node = node[step]
            elif isinstance(node, Sequence) and isinstance(step, int):
                key = value = node.marks[step]
                node = node[step]
            else:
                break
        return position(key), position(value)


def position(mark: Mark) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def shown(found: object) -> str:
    """What the map has in place of what is expected, for a message."""
    match found:
        case dict():
            return "a block of keys"
        case Sequence():
            return "a list"
    return quote(str(found))


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML calls unprintable; and what makes the text on the screen, or its line numbers, differ
# from what is read: unusual line breaks, bidirectional controls.
_UNSAFE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    "|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
    "|\r(?!\n)"
)
_PLAIN = bytes([*b"\t\n", *range(0x20, 0x7F)])

_EMPTY: Final = ("the map is empty", "write 'vms: {}' for a map without VMs")
_NO_VALUE: Final = "remove the line, or write '[]' for an empty list, '{}' for an empty block"
_NO_ENTRY: Final = "write its value, or remove it"
_NODES = (yaml.ScalarEvent, yaml.CollectionStartEvent, yaml.AliasEvent)
_ONE_ONLY: Final = "remove the '---'"
_QUOTE_IT: Final = "put text that starts with a special character in quotes"

_MAX_DEPTH: Final = 16
_TOO_DEEP: Final = f"nested deeper than {_MAX_DEPTH} levels"


def read(data: bytes, file: str) -> Document:
    """Read one YAML document; `file` is its name in problems."""
    document = Document(file)
    text = _decode(data, document)
    if not document.problems:
        document.root = _Builder(text, document.complain).build()
    if not document.root and not document.problems:
        document.complain(Position(1, 1), *_EMPTY)
    return document


def _decode(data: bytes, document: Document) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        document.complain(at, "this is not UTF-8 text", "save the file as UTF-8")
        return ""
    # Nearly every map has only these characters, and this test is twenty times as fast as _UNSAFE.
    if data.translate(None, _PLAIN) and _UNSAFE.search(text):
        _complain_unsafe(text, document)
    return text


def _complain_unsafe(text: str, document: Document) -> None:
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if found := _UNSAFE.search(line):
            name = f"U+{ord(found.group()):04X}"
            at = Position(number, found.start() + 1)
            document.complain(at, f"the invisible character {name} is not allowed", "remove it")


def _is_empty(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and not event.value and not event.style


class _GiveUpError(Exception):
    """Stop, and drop what is read so far: the rest would seem to be missing."""


class _Builder:
    """Turns parser events into a tree."""

    def __init__(self, text: str, report: Callable[[Position, str, str], None]) -> None:
        self.text = text
        self.report = report
        self.lines = text.count("\n") + 1

    def build(self) -> Sequence:
        root = Sequence()
        try:
            self.next: Any = _Loader(self.text).get_event
            self.documents(root)
        except _GiveUpError:
            root.clear()
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an escape beyond U+10FFFF
            self.syntax_error(error)
            root.clear()
        return root

    def documents(self, root: Sequence) -> None:
        while event := self.next():
            if type(event) is yaml.DocumentStartEvent and root:
                self.complain(event.start_mark, "a second document starts here", _ONE_ONLY)
                return
            if isinstance(event, _NODES):
                if _is_empty(event):
                    self.complain(event.start_mark, *_EMPTY)
                self.append(root, event, 0)

    def mapping(self, depth: int) -> Mapping:
        node = Mapping()
        while type(key := self.next()) is not yaml.MappingEndEvent:
            name = self.key(key, node, depth)
            event = self.next()
            value = self.node(event, depth)
            if name is None:
                continue
            if type(value) is Hole:
                self.hole(event, key.start_mark, f"{quote(name)} has no value", _NO_VALUE)
            node[name] = value
            node.marks[name] = (key.start_mark, event.start_mark)
        return node

    def key(self, event: Any, parent: Mapping, depth: int) -> str | None:
        """The key's name, or None if its value must be dropped."""
        node = self.node(event, depth)
        if type(node) is str and node not in parent and node != "<<":
            return node
        mark = event.start_mark
        if isinstance(node, Mapping | Sequence):
            self.complain(mark, "a key must be plain text", _QUOTE_IT)
        elif node == "<<":
            self.complain(mark, "merging with '<<' is not allowed", "write the keys out")
        elif isinstance(node, str):
            first = position(parent.marks[node][0]).line
            message = f"duplicate key {quote(node)}, first at line {first}"
            self.complain(mark, message, "keep one of the two")
        elif _is_empty(event):
            self.complain(mark, "a key is missing before the ':'")
        return None

    def sequence(self, depth: int) -> Sequence:
        node = Sequence()
        while type(event := self.next()) is not yaml.SequenceEndEvent:
            value = self.append(node, event, depth)
            if type(value) is Hole:
                self.hole(event, event.start_mark, "a list entry is empty", _NO_ENTRY)
        return node

    def append(self, parent: Sequence, event: Any, depth: int) -> Node:
        node = self.node(event, depth)
        parent.append(node)
        parent.marks.append(event.start_mark)
        return node

    def node(self, event: Any, depth: int) -> Node:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self.refused_alias(event)
        if event.anchor is not None or event.tag is not None:
            self.refuse_properties(event)
        if kind is yaml.ScalarEvent:
            return event.value if event.value or event.style else Hole()
        if depth == _MAX_DEPTH:
            self.complain(event.start_mark, _TOO_DEEP)
            raise _GiveUpError
        return (self.mapping if kind is yaml.MappingStartEvent else self.sequence)(depth + 1)

    def hole(self, event: Any, mark: Mark, message: str, hint: str) -> None:
        """Complain if the value is empty: a refused alias is a hole too, but reported already."""
        if _is_empty(event):
            self.complain(mark, message, hint)

    def refused_alias(self, event: Any) -> Hole:
        message = f"the alias {quote(f'*{event.anchor}')} is not allowed"
        self.complain(event.start_mark, message, "write out what it stands for")
        return Hole()

    def refuse_properties(self, event: Any) -> None:
        if event.anchor is not None:
            message = f"the anchor {quote('&' + event.anchor)} is not allowed"
            self.complain(event.start_mark, message, _QUOTE_IT)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {quote(tag)} is not allowed"
            self.complain(event.start_mark, message, _QUOTE_IT)

    def syntax_error(self, error: Exception) -> None:
        start: Mark | None = getattr(error, "context_mark", None)
        mark: Mark | None = getattr(error, "problem_mark", None) or start
        message, hint = _syntax_words(
            getattr(error, "problem", None) or "unreadable", position(start).line if start else 1
        )
        self.complain(mark, message, hint)

    def complain(self, mark: Mark | None, message: str, hint: str = "") -> None:
        line, column = position(mark) if mark else Position(1, 1)
        # If the last line has no line end, libyaml puts the end of the file one line too far.
        self.report(Position(min(line, self.lines), column), message, hint)


#: libyaml's most frequent errors: our message, and a hint.
#: In a hint, {} is the line where the unreadable part starts.
_SYNTAX: Final = {
    "mapping values are not allowed in this context": (
        "a ':' may not stand here",
        "check the indentation; put text with ': ' in it in quotes",
    ),
    "found character that cannot start any token": (
        "a value may not start with this character",
        f"indent with spaces, not tabs; {_QUOTE_IT}",
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
        "",
    ),
    "found unknown escape character": (
        "this escape does not exist",
        "put text with a backslash in single quotes",
    ),
    "did not find expected alphabetic or numeric character": (
        "a value may not start with '*' or '&'",
        _QUOTE_IT,
    ),
    # libyaml's own limit, about 1,000. It reads ahead, so it may reach that before we reach ours.
    "exceeded maximum nesting depth": (_TOO_DEEP, ""),
    "did not find expected <document start>": (
        "this does not belong to what stands above",
        "check the indentation",
    ),
}


def _syntax_words(problem: str, start_line: int) -> tuple[str, str]:
    """Message and hint for an error of libyaml in what starts at `start_line`."""
    message, hint = _SYNTAX.get(problem, (f"this is not YAML: {problem}", ""))
    return message, hint.format(start_line)
