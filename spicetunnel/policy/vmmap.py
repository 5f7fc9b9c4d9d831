"""The VM map: read, checked, and put together from its files."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import ValidationError

from spicetunnel.policy import crosscheck, yamlsource
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.models import Channels, Grant, Limits, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import MapError, MapUnreadableError, Problem, printable
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamltree import Document, Path

__all__ = [
    "Grant",
    "MapError",
    "Problem",
    "Vm",
    "VmMap",
    "Who",
    "load_map",
    "map_files",
    "parse_map",
]

_Model = TypeVar("_Model", VmMap, MapPart)
_Source = tuple[bytes, str]  # a file's bytes, and its name in problems


def map_files(path: str | os.PathLike[str]) -> list[str]:
    """The files that make up the map at `path`: itself, and vms.d/*.yaml beside it, by name.

    Names that start with a dot are an editor's. Raises MapUnreadableError where vms.d may not be
    looked into.
    """
    directory = FilePath(path).parent / "vms.d"
    try:
        names = sorted(name for name in os.listdir(directory) if _is_part(name))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        message = f"cannot be read: {(error.strerror or 'no reason given').lower()}"
        raise MapUnreadableError([Problem(printable(str(directory)), 0, 0, message)]) from None
    return [os.fspath(path), *(str(directory / name) for name in names)]


def _is_part(name: str) -> bool:
    return name.endswith(".yaml") and not name.startswith(".")


def load_map(path: str | os.PathLike[str]) -> VmMap:
    """Read and check the map at `path`. Raises MapError with every problem found."""
    file = os.fspath(path)
    main = (read_trusted(file), printable(file))
    parts: list[_Source] = []
    problems: list[Problem] = []
    for name in map_files(path)[1:]:
        try:
            parts.append((read_trusted(name), printable(name)))
        except MapError as error:
            problems += error.problems
    return _build(main, parts, problems)


def parse_map(data: bytes, file: str) -> VmMap:
    """Check a map's text; `file` is its name in problems. Raises MapError."""
    return _build((data, file), [], [])


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A large map is many new objects and no garbage: the collector would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_collector_paused()
def _build(main: _Source, others: list[_Source], problems: list[Problem]) -> VmMap:
    complete = not problems
    documents = [yamlsource.read(data, file) for data, file in (main, *others)]
    vm_map = _validated(VmMap, documents[0], problems)
    parts = [_validated(MapPart, document, problems) for document in documents[1:]]
    problems += crosscheck.problems_of(documents, complete=complete)
    if vm_map is None or problems:
        raise MapError(problems)
    found: list[VmMap | MapPart] = [vm_map, *(part for part in parts if part)]
    return _merged(vm_map, found) if parts else vm_map


def _validated(model: type[_Model], document: Document, problems: list[Problem]) -> _Model | None:
    """The document as a model, or None with what is wrong added to `problems`."""
    problems += document.problems
    try:
        root = document.root
        return model.model_validate(root[0], context=document.file) if root else None
    except ValidationError as error:
        problems += problems_of(error, document, lambda path: _keys_at(model, path))
        return None


def _merged(main: VmMap, parts: list[VmMap | MapPart]) -> VmMap:
    people = {name: who for part in parts for name, who in part.people.items()}
    vms = {name: vm for part in parts for name, vm in part.vms.items()}
    return main.model_copy(update={"people": people, "vms": vms})


def _keys_at(top: type[VmMap | MapPart], path: Path) -> list[str]:
    """The keys that may stand in the block at `path`."""
    match path:
        case ("vms", _):
            model: type[Vm | Grant | Channels | Who | Limits | VmMap | MapPart] = Vm
        case ("vms", _, "allow", _):
            model = Grant
        case ("vms", _, "allow", _, "channels"):
            model = Channels
        case ("people", _, _):
            model = Who
        case ("limits",):
            model = Limits
        case _:
            model = top
    return [field.alias or name for name, field in model.model_fields.items()]
