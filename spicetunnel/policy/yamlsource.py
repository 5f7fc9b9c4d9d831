"""A strict subset of YAML, read with the position of every node.

Every scalar stays the text that was written, quoted or not: `no` is a user's name, `17:00` is not
1020. The tree is built from parser events on a stack of our own, so that no nesting exhausts
Python's, and reading goes on after a fault where the rest still makes sense.
"""

import io
import re
from typing import Any, Final, Protocol

import yaml

from spicetunnel.policy.problems import quote
from spicetunnel.policy.wording import QUOTE_IT, syntax_words
from spicetunnel.policy.yamltree import (
    Document,
    Hole,
    Mapping,
    Mark,
    Node,
    Position,
    Sequence,
    position,
)

MAX_DEPTH = 16

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# All that YAML calls unprintable, and what would make the text on the screen or its line numbers
# differ from what we read: odd line breaks, bidirectional controls.
_UNSAFE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    "|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
    "|\r(?!\n)"
)

_EMPTY: Final = ("the map is empty", "write 'vms: {}' for a map without VMs")
# A key's name (None: its value is not to be kept) and its mark.
_Key = tuple[str | None, Mark]


class _Event(Protocol):
    """What we use of PyYAML's events (whose stubs call every mark optional)."""

    start_mark: Mark
    anchor: str | None
    tag: str | None
    value: str
    style: str | None


def read(data: bytes, file: str) -> Document:
    """Read one YAML document; `file` is its name in problems."""
    document = Document(file)
    text = _decode(data, document)
    if not document.problems:
        _Builder(document, text).build()
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
    if _UNSAFE.search(text):
        _complain_unsafe(text, document)
    return text


def _complain_unsafe(text: str, document: Document) -> None:
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if found := _UNSAFE.search(line):
            name = f"U+{ord(found.group()):04X}"
            at = Position(number, found.start() + 1)
            document.complain(at, f"the invisible character {name} is not allowed", "remove it")


class _Builder:
    """Turns parser events into a tree.

    `node` is the collection being filled, and `key` the key in it that waits for its value.
    """

    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.text = text
        self.lines = text.count("\n") + 1
        self.node: Mapping | Sequence = document.root
        self.key: _Key | None = None
        self.outer: list[tuple[Mapping | Sequence, _Key | None]] = []
        self.done = False

    def build(self) -> None:
        handlers: dict[type[yaml.Event], Any] = {
            yaml.ScalarEvent: self.scalar,
            yaml.AliasEvent: self.alias,
            yaml.MappingStartEvent: lambda event: self.start(Mapping(), event),
            yaml.SequenceStartEvent: lambda event: self.start(Sequence(), event),
            yaml.MappingEndEvent: self.end,
            yaml.SequenceEndEvent: self.end,
            yaml.DocumentStartEvent: self.document_start,
        }
        try:
            for event in yaml.parse(self.text, Loader=_Loader):
                if handler := handlers.get(type(event)):
                    handler(event)
                if self.done:
                    return
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an escape beyond U+10FFFF
            self.syntax_error(error)

    def scalar(self, event: _Event) -> None:
        if event.anchor is not None or event.tag is not None:
            self.refuse_properties(event)
        if event.value or event.style:
            self.add(event.value, event.start_mark)
        else:
            self.empty(event.start_mark)

    def start(self, node: Mapping | Sequence, event: _Event) -> None:
        if event.anchor is not None or event.tag is not None:
            self.refuse_properties(event)
        if len(self.outer) == MAX_DEPTH:
            self.complain(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
            self.give_up()
            return
        self.add(node, event.start_mark)
        self.outer.append((self.node, self.key))
        self.node, self.key = node, None

    def end(self, _event: _Event) -> None:
        self.node, self.key = self.outer.pop()

    def add(self, node: Node, mark: Mark) -> None:
        parent = self.node
        if isinstance(parent, Sequence):
            parent.append(node)
            parent.marks.append(mark)
        elif self.key is None:
            self.key = self.checked_key(parent, node, mark), mark
        else:
            name, key_mark = self.key
            self.key = None
            if name is not None:
                parent[name] = node
                parent.key_marks[name] = key_mark
                parent.marks[name] = mark

    def checked_key(self, parent: Mapping, node: Node, mark: Mark) -> str | None:
        if isinstance(node, str) and node not in parent and node != "<<":
            return node
        if isinstance(node, Mapping | Sequence):
            self.complain(mark, "a key must be plain text", QUOTE_IT)
        elif node == "<<":
            self.complain(mark, "merging with '<<' is not allowed", "write the keys out")
        elif isinstance(node, str):
            first = position(parent.key_marks[node]).line
            message = f"duplicate key {quote(node)}, first at line {first}"
            self.complain(mark, message, "keep one of the two")
        return None

    def empty(self, mark: Mark) -> None:
        if self.node is self.document.root:
            self.complain(mark, *_EMPTY)
        elif isinstance(self.node, Sequence):
            self.complain(mark, "a list entry is empty", "write its value, or remove it")
        elif self.key is None:
            self.complain(mark, "a key is missing before the ':'")
        elif (name := self.key[0]) is not None:
            hint = "remove the line, or write '[]' for an empty list, '{}' for an empty block"
            self.complain(self.key[1], f"{quote(name)} has no value", hint)
        self.add(Hole(), mark)

    def alias(self, event: _Event) -> None:
        message = f"the alias {quote(f'*{event.anchor}')} is not allowed"
        self.complain(event.start_mark, message, "write out what it stands for")
        self.add(Hole(), event.start_mark)

    def refuse_properties(self, event: _Event) -> None:
        if event.anchor is not None:
            message = f"the anchor {quote('&' + event.anchor)} is not allowed"
            self.complain(event.start_mark, message, QUOTE_IT)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {quote(tag)} is not allowed"
            self.complain(event.start_mark, message, QUOTE_IT)

    def document_start(self, event: _Event) -> None:
        if self.document.root:
            self.complain(event.start_mark, "a second document starts here", "remove the '---'")
            self.done = True

    def syntax_error(self, error: Exception) -> None:
        start: Mark | None = getattr(error, "context_mark", None)
        mark: Mark | None = getattr(error, "problem_mark", None) or start
        message, hint = syntax_words(
            getattr(error, "problem", None) or "unreadable", position(start).line if start else 1
        )
        self.complain(mark, message, hint)
        self.give_up()

    def give_up(self) -> None:
        """What is built so far would only raise complaints about what is missing."""
        self.document.root.clear()
        self.done = True

    def complain(self, mark: Mark | None, message: str, hint: str = "") -> None:
        line, column = position(mark) if mark else Position(1, 1)
        # libyaml puts the end of a file one line too far when the last line has no end.
        self.document.complain(Position(min(line, self.lines), column), message, hint)
