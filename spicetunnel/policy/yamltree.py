"""What yamlsource reads: nested dicts and lists of text, and where everything stood."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from spicetunnel.policy.problems import Problem, quote


class Position(NamedTuple):
    """Counted from 1."""

    line: int
    column: int


class Mark(Protocol):
    """What both of PyYAML's parsers give: counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Hole:
    """Stands for a value that could not be read, of which a Problem already tells."""


class Mapping(dict[str, "Node"]):
    """`marks` are those of key and value."""

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
    """`root` holds the one top node, or nothing where the rest of the file could not be read."""

    file: str
    root: Sequence = field(default_factory=Sequence)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, at: Position, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, *at, message, hint))

    def locate(self, path: Path) -> tuple[Position, Position]:
        """Where key and value of the node at `path` start, or of the nearest node above it."""
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
    """What stands in the map where something else should."""
    match found:
        case dict():
            return "a block of keys"
        case Sequence():
            return "a list"
    return quote(str(found))
