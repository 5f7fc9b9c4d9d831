"""A map's text, cut where its VMs begin, so that a reload can leave out those it has read before.

Cut by lines alone, which may be wrong: quotes can hold what looks like a VM. So nothing is believed
of it that the parser does not confirm: `proven`.

Why a proven chunk may be left out, or put in, between two others: at the key of a VM, a parser has
nothing open but the block of `vms:`, at one indentation. What it makes of a chunk depends on that
and on the chunk's text, and at the chunk's end it is there again: so what stands before and behind
a chunk does not change what it says, nor does it change what they say.
"""

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from spicetunnel.common.names import VM_NAME
from spicetunnel.policy.models import Vm
from spicetunnel.policy.yamltree import Mark, MarkedMapping, Node

_KEY = rb"%s:(?=[ \r\n]|\Z)" % VM_NAME.pattern.encode()
_NOTHING = rb"[ \r]*(?:#[^\n]*)?\n"  # the rest of a line, or a line
_HEAD = re.compile(rb"^vms:%s(?:%s)*(?=( +)%s)" % (_NOTHING, _NOTHING, _KEY), re.MULTILINE)
_TAIL = re.compile(rb"\n(?=[^ #\t\r\n])")


@dataclass(slots=True)
class Chunk:
    """A VM, and where its text begins: the line, from 0, to which its grants' places belong."""

    name: str
    vm: Vm
    line: int

    def move_to(self, line: int) -> None:
        if line != self.line:
            self.vm.move(line - self.line)
            self.line = line


class Cut(NamedTuple):
    """`lines` are those, from 0, on which the chunks begin, and last the tail."""

    head: bytes
    chunks: list[bytes]
    tail: bytes
    indent: int
    lines: list[int]


def cut(data: bytes) -> Cut | None:
    """None where the text does not look like a block of VMs, one below the other."""
    found = _HEAD.search(data)
    if found is None:
        return None
    first, indent = found.end(), len(found[1])
    behind = _TAIL.search(data, first)
    end = behind.end() if behind else len(data)
    key = re.compile(rb"\n(?= {%d}%s)" % (indent, _KEY))
    starts = [first, *(each.end() for each in key.finditer(data, first, end)), end]
    chunks = [data[start:stop] for start, stop in pairwise(starts)]
    lines = accumulate(
        (chunk.count(b"\n") for chunk in chunks), initial=data.count(b"\n", 0, first)
    )
    return Cut(data[:first], chunks, data[end:], indent, list(lines))


def proven(parts: Cut, root: Node) -> bool:
    """Whether the parser found the VMs' keys, and the key behind the last VM, where it was cut."""
    vms = root.get("vms") if isinstance(root, MarkedMapping) else None
    if not isinstance(root, MarkedMapping) or not isinstance(vms, MarkedMapping):
        return False
    *lines, tail = parts.lines
    # Only a block begins where its first key does: what is in braces begins before it.
    in_block = _place(root.marks["vms"][1]) == (lines[0], parts.indent)
    closed = not parts.tail or (tail, 0) in _keys(root)
    return in_block and closed and _keys(vms) == [(line, parts.indent) for line in lines]


def _keys(block: MarkedMapping) -> list[tuple[int, int]]:
    return [_place(key) for key, _ in block.marks.values()]


def _place(mark: Mark) -> tuple[int, int]:
    return mark.line, mark.column
