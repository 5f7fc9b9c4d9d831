"""Makes docs/man/spicetunnel-map.5 from docs/map.md: `script/man`.

Knows the Markdown that map.md uses, and raises KeyError for any other.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = DOCS / "map.md"
PAGE = DOCS / "man" / "spicetunnel-map.5"

_HEAD = r"""
.\" Made from docs/map.md by script/man: edit that.
.TH SPICETUNNEL-MAP 5 {date} spicetunnel "File formats"
.SH NAME
spicetunnel-map \- who may use which VM's SPICE console, when, from where, and how much of it
.SH SYNOPSIS
.I /etc/spicetunnel/vms.yaml
.br
.I /etc/spicetunnel/vms.d/*.yaml
.SH DESCRIPTION
""".lstrip()
_FOOT = r"""
.SH FILES
.TP
.I /etc/spicetunnel/vms.yaml
The map.
.TP
.I /etc/spicetunnel/vms.d/*.yaml
More files of the map.
.SH SEE ALSO
.BR spicetunnel (8),
.BR spicetunneld (8),
.BR spice\-connect (1)
""".lstrip()

_ESCAPES = str.maketrans({"\\": r"\e", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def page(markdown: str, date: str) -> str:
    """The man page, in roff; `date` is YYYY-MM-DD."""
    tree = SyntaxTreeNode(MarkdownIt().enable("table").parse(markdown))
    body = "".join(line for block in tree.children for line in _BLOCKS[block.type](block))
    text = _HEAD.format(date=date) + body + _FOOT
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", text, flags=re.MULTILINE)


def date_of(roff: str) -> str:
    found = re.search(r"^\.TH \S+ \S+ (\S+)", roff, re.MULTILINE)
    return found[1] if found else ""


def _heading(block: SyntaxTreeNode) -> Iterator[str]:
    title = _text(block)
    match block.tag:
        case "h2":
            yield f".SH {title.upper()}\n"
        case "h3":
            yield f".SS {title}\n"


def _paragraph(block: SyntaxTreeNode) -> Iterator[str]:
    yield f".PP\n{_text(block)}\n"


def _fence(block: SyntaxTreeNode) -> Iterator[str]:
    yield f".PP\n.RS 4\n.EX\n{_guarded(_escaped(block.content))}.EE\n.RE\n"


def _table(block: SyntaxTreeNode) -> Iterator[str]:
    """A tagged paragraph for each row: its key, then its value and what that means."""
    head, body = block.children
    title = _text(head.children[0].children[0])
    if title != "key":
        yield f".PP\n{_sentence(title)}:\n"
    for row in body.children:
        key, value, meaning = map(_text, row.children)
        said = f"{value}: {meaning}" if meaning else value
        yield f".TP\n.B {_plain(key)}\n{_guarded(_sentence(said))}.\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".")


def _plain(text: str) -> str:
    return re.sub(r"\\f.", "", text)


_BLOCKS: dict[str, Callable[[SyntaxTreeNode], Iterator[str]]] = {
    "heading": _heading,
    "paragraph": _paragraph,
    "fence": _fence,
    "table": _table,
}


def _text(block: SyntaxTreeNode) -> str:
    """The words of a block, with font changes."""
    return _guarded(_inline(block.children, "R"))


def _inline(nodes: list[SyntaxTreeNode], font: str) -> str:
    return "".join(_INLINE[node.type](node, font) for node in nodes)


def _in_font(name: str) -> Callable[[SyntaxTreeNode, str], str]:
    def write(node: SyntaxTreeNode, around: str) -> str:
        inner = _inline(node.children, name) if node.children else _escaped(node.content)
        return rf"\f{name}{inner}\f{around}"

    return write


_INLINE: dict[str, Callable[[SyntaxTreeNode, str], str]] = {
    "inline": lambda node, font: _inline(node.children, font),
    "text": lambda node, _: node.content.translate(_ESCAPES),
    "softbreak": lambda _node, _font: "\n",
    "code_inline": _in_font("B"),
    "strong": _in_font("B"),
    "em": _in_font("I"),
}


def _escaped(code: str) -> str:
    """Text to be copied: its hyphens stay what they are."""
    return code.translate(_ESCAPES).replace("-", r"\-")


def _guarded(text: str) -> str:
    """No line that begins like a request of roff's."""
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def main() -> None:
    markdown, old = SOURCE.read_text(), PAGE.read_text()
    if page(markdown, date_of(old)) != old:
        PAGE.write_text(page(markdown, f"{datetime.now(UTC):%Y-%m-%d}"))


if __name__ == "__main__":
    main()
