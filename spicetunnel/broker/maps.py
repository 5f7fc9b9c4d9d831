"""The VM map in force: loaded at start, and again whenever its file changes."""

import asyncio
import os
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.policy.vmmap import MapError, MapReader, VmMap, map_files

#: What tells one state of a map's files from another.
_Signature = tuple[tuple[str, int, int, int, int], ...]


class MapStore:
    """`current` is always a good map: a bad one is logged and never replaces it."""

    def __init__(self, path: Path, audit: Audit) -> None:
        """Raises MapError: without one good map there is nothing to start with."""
        self._path = path
        self._audit = audit
        self._seen = self._signature()
        self._reader = MapReader()  # which remembers the last good map
        self.current: VmMap = self._reader.load(path)
        self._log_loaded()

    async def changed(self) -> bool:
        """Whether the file has changed since it was last looked at, and has settled."""
        now = self._signature()
        if now == self._seen:
            return False
        await asyncio.sleep(0.1)  # an editor may be in the middle of writing
        return now == self._signature()

    async def reload(self) -> bool:
        """Load the file afresh; whether it was good. In a thread: a large map takes a while."""
        self._seen = self._signature()
        try:
            self.current = await asyncio.to_thread(self._reader.load, self._path)
        except MapError as error:
            self._log_refused(error)
            return False
        self._log_loaded()
        return True

    def _signature(self) -> _Signature:
        try:
            return tuple(map(_signature_of, map_files(self._path)))
        except (OSError, MapError):
            return ()

    def _log_loaded(self) -> None:
        grants = sum(len(vm.allow) for vm in self.current.vms.values())
        self._audit.write(
            "map", decision="allow", file=str(self._path), vms=len(self.current.vms), grants=grants
        )

    def _log_refused(self, error: MapError) -> None:
        self._audit.write(
            "map",
            decision="deny",
            file=str(self._path),
            reason="the map is not valid; the last good one stays in force",
            problems=[str(problem) for problem in error.problems[:20]],
        )


def _signature_of(file: str) -> tuple[str, int, int, int, int]:
    found = os.stat(file)
    return (file, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
