"""The VM map: read, checked, and put together from its files."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

from spicetunnel.policy import crosscheck
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.models import Grant, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import MapError, MapUnreadableError, Problem, printable
from spicetunnel.policy.reading import (
    DoubtError,
    Read,
    Reading,
    Source,
    outline,
    read,
    read_again,
)

__all__ = [
    "Grant",
    "MapError",
    "MapReader",
    "Problem",
    "Vm",
    "VmMap",
    "Who",
    "load_map",
    "map_files",
    "parse_map",
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


class MapReader:
    """Reads a map and, when it is asked again, only what is new since the last good reading."""

    def __init__(self) -> None:
        self._main: Reading[VmMap] | None = None
        self._parts: dict[str, Reading[MapPart]] = {}

    @property
    def sources(self) -> list[Source]:
        """The texts of the last good map's files, the main one first."""
        main = [self._main.source] if self._main else []
        return [*main, *(part.source for part in self._parts.values())]

    def load(self, path: str | os.PathLike[str]) -> VmMap:
        """Read and check the map at `path`. Raises MapError with every problem found."""
        file = os.fspath(path)
        main = (read_trusted(file), printable(file))
        parts: list[Source] = []
        problems: list[Problem] = []
        for name in map_files(path)[1:]:
            try:
                parts.append((read_trusted(name), printable(name)))
            except MapError as error:
                problems += error.problems
        return self.parse(main, parts, problems)

    @_collector_paused()
    def parse(self, main: Source, parts: list[Source], problems: list[Problem]) -> VmMap:
        """Check the files' texts; `problems` are those of files that could not be read."""
        if self._main and not problems:
            try:
                return self._accept(
                    read_again(VmMap, main, self._main), list(map(self._part_again, parts)), []
                )
            except (DoubtError, MapError):
                pass  # only the whole is ever refused: what was cut knows no places
        complete = not problems
        found = read(VmMap, main, problems), [read(MapPart, part, problems) for part in parts]
        return self._accept(*found, problems, complete=complete)

    def _part_again(self, part: Source) -> Read[MapPart]:
        last = self._parts.get(part[1])
        if last and last.source == part:
            return outline(part[1], last.model), last
        return read_again(MapPart, part, last)

    def _accept(
        self,
        main: Read[VmMap],
        parts: list[Read[MapPart]],
        problems: list[Problem],
        *,
        complete: bool = True,
    ) -> VmMap:
        """Make these files the last good map. Raises MapError, and remembers nothing."""
        documents = [document for document, _ in (main, *parts)]
        problems += crosscheck.problems_of(documents, complete=complete)
        reading = main[1]
        if reading is None or problems:
            raise MapError(problems)
        others = [each for _, each in parts if each]
        reading.settle()
        for each in others:
            each.settle()
        self._main, self._parts = reading, {each.source[1]: each for each in others}
        return _merged(reading.model, [each.model for each in others])


def load_map(path: str | os.PathLike[str]) -> VmMap:
    """Read and check the map at `path`. Raises MapError with every problem found."""
    return MapReader().load(path)


def parse_map(data: bytes, file: str) -> VmMap:
    """Check a map's text; `file` is its name in problems. Raises MapError."""
    return MapReader().parse((data, file), [], [])


def _merged(main: VmMap, parts: list[MapPart]) -> VmMap:
    if not parts:
        return main
    files: list[VmMap | MapPart] = [main, *parts]
    people = {name: who for file in files for name, who in file.people.items()}
    vms = {name: vm for file in files for name, vm in file.vms.items()}
    return main.model_copy(update={"people": people, "vms": vms})
