"""Maps written and edited at random, for a property test and a fuzzer to draw from alike."""

import re
from collections.abc import Callable
from typing import TypeVar

Pick = Callable[[int], int]  # a number below this one
_T = TypeVar("_T")

_PEOPLE = "people: {p: [user: x]}\n"
HEADS = ["", "people:\n  p:\n    - user: vms\n", "# all\n\n", "---\n", "%YAML 1.1\n---\n"]
HEADS += ["delegates: [a,\nb]\n", "timezone: UTC\n"]
KEYS = ["vms:\n", "vms:\n", "vms:\n", "vms:  # here\n", "vms:\n\n  # first\n", "vms:\r\n"]
FORMS = [
    "{i}{n}:\n{i}  socket: /{n}\n{i}  allow:\n{i}    - user: {n}\n{i}    - group: g\n",
    "{i}{n}:\n{i}  socket: /{n}\n{i}  allow:\n{i}  - user: [x,\n{i} {n}]\n\n{i}  - people: p\n",
    "{i}{n}: {{socket: /{n}, allow: [user: {n}, people: p]}}  # {n}\n",
    "{i}{n}:\n{i}  title: 'it''s\n{i}  {n}'\n{i}  socket: /{n}\n",
    "{i}{n}:\n{i}  socket: /{n}\n{i}  title: >-\n{i}    x\n{i}    y\n\n{i}  # z\n{i}# {n}:\n",
    "{i}{n}:\r\n{i}  socket: /{n}\r\n{i}  allow:\r\n{i}  - user: {n}\r\n",
    "{i}{n}:\n{i}  socket: /{n}\n{i}  title: q\n{i}   {n}\n# {n}\n",
    '{i}{n}:\n{i}  socket: /{n}\n{i}  title: "x\n{i}q:\n{i}  socket: /q"\n',
    "{i}{n}: {{socket: /{n},\n{i}allow: [user: x,\nuser: y]\n{i}}}\n",
    '{i}"{n}": {{socket: /{n}}}\n',
    "{i}? {n}\n{i}: {{socket: /{n}}}\n",
]
TAILS = ["", "", "", "warn: []\n", "limits:\n  opens-per-minute: 5\n", "...\n", "# end\n", "}\n"]
LINES = """\
  a:|  b: {socket: /b}|# x||    title: x|vms:|...|---|\t|  ? x|  : y|  "c": {socket: /c}|  - x|}|'
 d:|   d:|  e: >|  e: {socket: /e, title: '|    title: "|people: {}|y"|  y'}|  z: y"}
""".replace("\n", "|").split("|")
PIECES = ['"', "'", "{", "}", "[", "]", ",", ":", ": ", "#", " #", " ", "  ", "\n", "\r\n", "\r"]
PIECES += ["&a ", "*a", "!t ", "? ", "- ", "|", ">-", "\ufeff", "é", "\0", "\\", "<<: ", "\t", "a"]
NAMES = ["user: x", "user: y", "group: g", "/a", "/z", "title: q", "title: x", "a", "q", "p", "# z"]
_VM = re.compile(r"\n(?=  \w+:)")


def written(pick: Pick) -> str:
    """Mostly a good map, mostly with its VMs one below the other."""
    head = _one(HEADS, pick)
    people = "" if "people" in head else _PEOPLE
    return head + people + _vms("abcdefgh", pick) + _one(TAILS, pick)


def part_written(pick: Pick) -> str:
    return _one(["people: {r: []}\n", ""], pick) + _vms("stuvw", pick)


def _vms(names: str, pick: Pick) -> str:
    indent = " " * (2 if pick(4) else 1 + pick(4))
    forms = FORMS[: _one([2, 7, 7, 11], pick)]
    vms = [_one(forms, pick).format(i=indent, n=name) for name in names[: 1 + pick(len(names))]]
    return "".join([_one(KEYS, pick), *vms])


def edited(text: str, pick: Pick) -> str:
    for _ in range(1 + pick(2) * pick(3)):
        text = _one(_EDITS, pick)(text, pick)
    return text


def _one(several: list[_T], pick: Pick) -> _T:
    return several[pick(len(several))]


def _with_piece(text: str, pick: Pick) -> str:
    at = pick(len(text) + 1)
    return text[:at] + _one(PIECES, pick) + text[at + pick(2) :]


def _without_some(text: str, pick: Pick) -> str:
    at = pick(len(text) + 1)
    return text[:at] + text[at + 1 + pick(6) :]


def _with_line(text: str, pick: Pick) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(pick(len(lines) + 1), _one(LINES, pick) + "\n")
    return "".join(lines)


def _lines_moved(text: str, pick: Pick) -> str:
    return "".join(_moved(text.splitlines(keepends=True), pick))


def _vms_moved(text: str, pick: Pick) -> str:
    return "\n".join(_moved(_VM.split(text), pick))


def _moved(pieces: list[str], pick: Pick) -> list[str]:
    """One of them elsewhere, twice, or gone."""
    if pieces:
        one = pieces[pick(len(pieces))]
        if pick(3):
            pieces.remove(one)
        if pick(3):
            pieces.insert(pick(len(pieces) + 1), one)
    return pieces


def _renamed(text: str, pick: Pick) -> str:
    old, new = _one(NAMES, pick), _one(NAMES, pick)
    return text.replace(old, new, 1 + pick(4))


_EDITS = [_with_piece, _without_some, _with_line, _lines_moved, _vms_moved, _vms_moved, _renamed]
