"""What is wrong between the parts of a map, though each of them is right.

Not validators of the models: those would not run while any other problem is left.
"""

from collections.abc import Iterator

from spicetunnel.policy.problems import Problem, quote, suggest
from spicetunnel.policy.yamlsource import Document, Mapping, Node, Path, Position, Sequence


def problems_of(documents: list[Document], *, complete: bool) -> Iterator[Problem]:
    """Not `complete`: a file could not be read, so what is missing may stand there."""
    yield from _defined_twice(documents, "vms", "vm")
    yield from _defined_twice(documents, "people", "people")
    yield from _shared_sockets(documents)
    if complete and all(document.root for document in documents):
        yield from _unknown_people(documents)


def _vms_in(documents: list[Document]) -> Iterator[tuple[Document, str, Mapping]]:
    for document in documents:
        for name, vm in _blocks(document, "vms"):
            if isinstance(vm, Mapping):
                yield document, name, vm


def _blocks(document: Document, key: str) -> Iterator[tuple[str, object]]:
    top = document.root[0] if document.root else None
    block = top.get(key) if isinstance(top, Mapping) else None
    yield from block.items() if isinstance(block, Mapping) else ()


def _defined_twice(documents: list[Document], key: str, what: str) -> Iterator[Problem]:
    first: dict[str, Document] = {}
    for document in documents:
        for name, _ in _blocks(document, key):
            other = first.setdefault(name, document)
            if other is not document:
                here, _ = document.locate((key, name))
                there, _ = other.locate((key, name))
                message = (
                    f"{what} {quote(name)} is defined twice, first at {other.file}:{there.line}"
                )
                yield Problem(document.file, *here, message, "keep one of the two")


def _shared_sockets(documents: list[Document]) -> Iterator[Problem]:
    owners: dict[str, tuple[Document, str]] = {}
    for document, name, vm in _vms_in(documents):
        socket = vm.get("socket")
        if not isinstance(socket, str):
            continue
        other, owner = owners.setdefault(socket, (document, name))
        if (other, owner) != (document, name):
            place = _socket_at(other, owner)
            where = f"line {place.line}" if other is document else f"{other.file}:{place.line}"
            message = f"'socket' is that of vm {quote(owner)} too, at {where}"
            here = _socket_at(document, name)
            yield Problem(document.file, *here, message, "give each vm a socket of its own")


def _socket_at(document: Document, vm: str) -> Position:
    return document.locate(("vms", vm, "socket"))[1]


def _unknown_people(documents: list[Document]) -> Iterator[Problem]:
    known = {name: None for document in documents for name, _ in _blocks(document, "people")}
    for document, name, vm in _vms_in(documents):
        allow = vm.get("allow")
        for number, grant in enumerate(allow if isinstance(allow, Sequence) else ()):
            if isinstance(grant, Mapping) and "people" in grant:
                path = ("vms", name, "allow", number, "people")
                yield from _unknown_at(document, path, grant["people"], known)


def _unknown_at(
    document: Document, path: Path, used: Node, known: dict[str, None]
) -> Iterator[Problem]:
    names = used if isinstance(used, Sequence) else [used]
    for number, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            _, here = document.locate((*path, number))
            hint = suggest(name, known, "'people:' names") if known else "name them under 'people:'"
            yield Problem(document.file, *here, f"there are no people {quote(name)}", hint)
