"""Reads a strict subset of YAML, with the position of every node.

Every scalar stays the text that was written, quoted or not: `no` is a user's name, `17:00` is not
1020. The tree is built from the parser's events: that gives the positions, bounds the depth, and
lets reading go on after a mistake if the rest still makes sense.
"""

import io
import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

from spicetunnel.policy.problems import Problem, printable, quote
from spicetunnel.policy.yamlerrors import QUOTE_IT, TOO_DEEP, Mark, explain, spoiled


class Position(NamedTuple):
    """Counted from 1."""

    line: int
    column: int


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
    """`root` has the one top node, or nothing if nothing of the file could be read."""

    file: str
    root: Sequence = field(default_factory=Sequence)
    problems: list[Problem] = field(default_factory=list)
    is_whole: bool = True  # False if lines with syntax errors were left out

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
_NO_VALUE: Final = "write its value; '[]' is an empty list, '{}' an empty block"
_NO_ENTRY: Final = "write its value, or remove it"
_NODES = (yaml.ScalarEvent, yaml.CollectionStartEvent, yaml.AliasEvent)
_ONE_ONLY: Final = "remove the '---'"

_MAX_DEPTH: Final = 16
_MAX_MISTAKES: Final = 20  # in the syntax of one file
_MAX_READ: Final = 4 * 1024 * 1024  # characters, all readings of one file together
_SHOWN: Final = 60  # characters of the map's text in a hint


def read(data: bytes, file: str) -> Document:
    """Read one YAML document; `file` is its name in problems."""
    document = Document(file)
    text = _decode(data, document)
    if not document.problems:
        _build(text, document)
    if not document.root and not document.problems:
        document.complain(Position(1, 1), *_EMPTY)
    return document


def _build(text: str, document: Document) -> None:
    """Read the tree; after a syntax error again, without the lines that it spoils."""
    rows: list[str] = []
    gone: set[int] = set()
    for _ in range(max(1, min(_MAX_MISTAKES, _MAX_READ // (len(text) + 1)))):
        builder = _Builder(text, rows, gone)
        root = builder.build()
        error = builder.error
        if error is None:
            break
        rows = rows or text.split("\n")
        line, column, *words = explain(error, rows)
        document.complain(Position(line + 1, column + 1), *words)
        document.is_whole = False
        lines = {*spoiled(error, rows)}
        if lines <= gone:  # nothing is left that could be left out
            return
        gone |= lines
        rows = ["" if number in lines else row for number, row in enumerate(rows)]
        text = "\n".join(rows)
    else:
        return
    document.root = root
    for problem in builder.problems:
        document.complain(*problem)


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
    """Turns parser events into a tree.

    `gone` are lines left out of the text because of syntax errors, counted from 0; `rows` are all
    lines, needed where there are such. `error` is the next syntax error.
    """

    def __init__(self, text: str, rows: list[str], gone: set[int]) -> None:
        self.text = text
        self.rows = rows
        self.gone = gone
        self.error: Exception | None = None
        self.problems: list[tuple[Position, str, str]] = []

    def build(self) -> Sequence:
        root = Sequence()
        try:
            self.next: Any = _Loader(self.text).get_event
            self.documents(root)
        except _GiveUpError:
            root.clear()
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an escape beyond U+10FFFF
            self.error = error
        return root

    def documents(self, root: Sequence) -> None:
        while event := self.next():
            if type(event) is yaml.DocumentStartEvent and root:
                self.complain(event.start_mark, "a second document starts here", _ONE_ONLY)
                return
            if isinstance(event, _NODES):
                if _is_empty(event) and not self.gone:
                    self.complain(event.start_mark, *_EMPTY)
                self.append(root, event, 0)

    def mapping(self, depth: int, *, in_braces: bool) -> Mapping:
        node = Mapping()
        lone: list[Any] = []
        while type(key := self.next()) is not yaml.MappingEndEvent:
            name = self.key(key, node, depth)
            event = self.next()
            value = self.node(event, depth)
            if name is None:
                continue
            if in_braces and _is_empty(event) and self.is_alone(key):
                lone.append(key)
                continue
            self.lone_words(lone, node)
            if type(value) is Hole:
                self.hole(event, key.start_mark, f"{quote(name)} has no value", _NO_VALUE)
            node[name] = value
            node.marks[name] = (key.start_mark, event.start_mark)
        self.lone_words(lone, node)
        return node

    def is_alone(self, key: Any) -> bool:
        """Whether the key in braces has no ':', as the second day of `{when: Mon,Tue}`."""
        self.rows = self.rows or self.text.split("\n")
        after = self.rows[key.end_mark.line][key.end_mark.column :]
        return not after.lstrip().startswith(":")

    def lone_words(self, keys: list[Any], node: Mapping) -> None:
        """Complain of those words in braces that have no ':', and forget them."""
        if not keys:
            return
        words = [key.value for key in keys]
        name, value = next(reversed(node.items()), ("", None))
        hint = "write 'KEY: VALUE', with a ',' between two of them"
        if isinstance(value, str):
            whole = ",".join([value, *words])
            shown = printable(f'{name}: "{whole}"')[:_SHOWN]
            hint = f"a ',' ends a value in braces; put the value in quotes: {shown}"
        self.complain(keys[0].start_mark, f"{quote(words[0])} has no ':' and no value", hint)
        keys.clear()

    def key(self, event: Any, parent: Mapping, depth: int) -> str | None:
        """The key's name, or None if its value must be dropped."""
        node = self.node(event, depth)
        if type(node) is str and node not in parent and node != "<<":
            return node
        mark = event.start_mark
        if isinstance(node, Mapping | Sequence):
            self.complain(mark, "a key must be plain text", QUOTE_IT)
        elif node == "<<":
            self.complain(mark, "merging with '<<' is not allowed", "write the keys out")
        elif isinstance(node, str):
            first = position(parent.marks[node][0]).line
            message = f"duplicate key {quote(node)}, first at line {first}"
            self.complain(mark, message, "keep one of the two")
        elif _is_empty(event):
            self.complain(mark, "a key is missing before the ':'", "write 'KEY: VALUE'")
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
            self.complain(event.start_mark, *TOO_DEEP)
            raise _GiveUpError
        if kind is yaml.MappingStartEvent:
            return self.mapping(depth + 1, in_braces=event.flow_style)
        return self.sequence(depth + 1)

    def hole(self, event: Any, mark: Mark, message: str, hint: str) -> None:
        """Complain if the value is empty: a refused alias is a hole too, but reported already."""
        if _is_empty(event) and not self.was_left_out(mark.line):
            self.complain(mark, message, hint)

    def was_left_out(self, line: int) -> bool:
        """Whether what stood below that line is gone for its syntax errors."""
        below = range(line + 1, len(self.rows) if self.gone else 0)
        return next(
            (n in self.gone for n in below if n in self.gone or self.rows[n].strip()), False
        )

    def refused_alias(self, event: Any) -> Hole:
        message = f"the alias {quote(f'*{event.anchor}')} is not allowed"
        self.complain(event.start_mark, message, "write out what it stands for")
        return Hole()

    def refuse_properties(self, event: Any) -> None:
        if event.anchor is not None:
            message = f"the anchor {quote('&' + event.anchor)} is not allowed"
            self.complain(event.start_mark, message, QUOTE_IT)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {quote(tag)} is not allowed"
            self.complain(event.start_mark, message, QUOTE_IT)

    def complain(self, mark: Mark | None, message: str, hint: str = "") -> None:
        self.problems.append((position(mark) if mark else Position(1, 1), message, hint))
