"""The VM map: read, checked, and put together from its files."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

from spicetunnel.policy import crosscheck
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.models import Grant, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import MapError, MapUnreadableError, Problem, printable
from spicetunnel.policy.reading import Source, read

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


def load_map(path: str | os.PathLike[str]) -> VmMap:
    """Read and check the map at `path`. Raises MapError with every problem found."""
    return parse_sources(*read_sources(path))


def parse_map(data: bytes, file: str) -> VmMap:
    """Check a map's text; `file` is its name in problems. Raises MapError."""
    return parse_sources([(data, file)])


def read_sources(path: str | os.PathLike[str]) -> tuple[list[Source], list[Problem]]:
    """The texts of the map's files, the main one first, and why others could not be read.

    Raises MapError where the main file could not.
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


@_collector_paused()
def parse_sources(sources: list[Source], unreadable: Iterable[Problem] = ()) -> VmMap:
    """The map that these files make, the main one first.

    `unreadable` are the problems of files that could not be read. Raises MapError with these and
    every problem found.
    """
    problems = list(unreadable)
    complete = not problems
    document, main = read(VmMap, sources[0], problems)
    parts = [read(MapPart, source, problems) for source in sources[1:]]
    documents = [document, *(each for each, _ in parts)]
    problems += crosscheck.problems_of(documents, complete=complete)
    if main is None or problems:
        raise MapError(problems)
    return _merged(main, [part for _, part in parts if part])


def _merged(main: VmMap, parts: list[MapPart]) -> VmMap:
    if not parts:
        return main
    files: list[VmMap | MapPart] = [main, *parts]
    people = {name: who for file in files for name, who in file.people.items()}
    vms = {name: vm for file in files for name, vm in file.vms.items()}
    return main.model_copy(update={"people": people, "vms": vms})
