"""The VM map: its files read, checked, and merged into one."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import ValidationError

from spicetunnel.common.errors import os_reason
from spicetunnel.policy import yamlsource
from spicetunnel.policy.mapfile import cure, read_trusted
from spicetunnel.policy.models import Grant, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import (
    MapError,
    MapUnreadableError,
    Problem,
    printable,
    quote,
    suggest,
    with_lines,
)
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamlsource import Document, Mapping, Node, Path, Position, Sequence

__all__ = [
    "Grant",
    "MapError",
    "Problem",
    "Source",
    "Vm",
    "VmMap",
    "Who",
    "load_map",
    "map_files",
    "parse_map",
    "parse_sources",
    "read_sources",
]

Model = TypeVar("Model", VmMap, MapPart)
Source = tuple[bytes, str]  # a file's bytes, and its name in problems


def load_map(path: str | os.PathLike[str]) -> VmMap:
    """Read and check the map at `path`. Raises MapError with every problem found."""
    return parse_sources(*read_sources(path))


def parse_map(data: bytes, file: str) -> VmMap:
    """Check a map's text; `file` is its name in problems. Raises MapError."""
    return parse_sources([(data, file)])


def map_files(path: str | os.PathLike[str]) -> list[str]:
    """The map's files: `path` itself, then vms.d/*.yaml beside it, sorted by name.

    Names that start with a dot are left out: editors make them. Raises MapUnreadableError if vms.d
    may not be read.
    """
    directory = FilePath(path).parent / "vms.d"
    try:
        names = sorted(name for name in os.listdir(directory) if _is_part(name))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        words = f"cannot be read: {os_reason(error)}", cure(error, str(directory))
        raise MapUnreadableError([Problem(printable(str(directory)), 0, 0, *words)]) from error
    return [os.fspath(path), *(str(directory / name) for name in names)]


def _is_part(name: str) -> bool:
    return name.endswith(".yaml") and not name.startswith(".")


def read_sources(path: str | os.PathLike[str]) -> tuple[list[Source], list[Problem]]:
    """The texts of the map's files, the main one first; and the problems of unreadable ones.

    Raises MapError if the main file cannot be read.
    """
    main, *parts = map_files(path)
    sources = [(read_trusted(main), printable(main))]
    problems: list[Problem] = []
    for part in parts:
        try:
            sources.append((read_trusted(part), printable(part)))
        except MapError as error:
            problems += error.problems
    return sources, problems


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A large map is many new objects and no garbage: the collector takes 0.4 of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_collector_paused()
def parse_sources(sources: list[Source], unreadable: Iterable[Problem] = ()) -> VmMap:
    """The map made of these files, the main one first.

    `unreadable` are the problems of files that could not be read. Raises MapError with them and
    with every problem found.
    """
    problems = list(unreadable)
    complete = not problems
    document, main = _read(VmMap, sources[0], problems)
    parts = [_read(MapPart, source, problems) for source in sources[1:]]
    documents = [document, *(each for each, _ in parts)]
    problems += _problems_of_whole(documents, complete=complete)
    if main is None or problems:
        raise MapError(with_lines(problems, {name: data for data, name in sources}))
    return _merged(main, [part for _, part in parts if part])


def _read(
    kind: type[Model], source: Source, problems: list[Problem]
) -> tuple[Document, Model | None]:
    """One file as a document and as a model; None if it is not valid. Adds to `problems`."""
    document = yamlsource.read(*source)
    problems += document.problems
    try:
        root = document.root
        return document, kind.model_validate(root[0], context=document.file) if root else None
    except ValidationError as error:
        problems += problems_of(error, document, kind)
        return document, None


def _merged(main: VmMap, parts: list[MapPart]) -> VmMap:
    if not parts:
        return main
    files: list[VmMap | MapPart] = [main, *parts]
    people = {name: who for file in files for name, who in file.people.items()}
    vms = {name: vm for file in files for name, vm in file.vms.items()}
    return main.model_copy(update={"people": people, "vms": vms})


def _problems_of_whole(documents: list[Document], *, complete: bool) -> Iterator[Problem]:
    """Problems that are only seen in the whole map.

    These are not validators of the models, because pydantic would skip those while any field is
    wrong. If not `complete`, a file could not be read, and may have what seems to be missing.
    """
    yield from _defined_twice(documents, "vms", "vm")
    yield from _defined_twice(documents, "people", "people")
    yield from _shared_sockets(documents)
    if complete and all(document.root and document.is_whole for document in documents):
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
            message = f"vm {quote(owner)} has the same socket ({where})"
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
