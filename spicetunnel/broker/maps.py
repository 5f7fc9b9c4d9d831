"""The VM map in force: loaded at start, and again when one of its files or a time zone changes."""

import asyncio
import json
import os
import time
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import os_reason
from spicetunnel.common.files import replace
from spicetunnel.policy import models
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapUnreadableError
from spicetunnel.policy.vmmap import MapError, Source, VmMap, map_files, parse_sources, read_sources

#: Differs whenever one of these files does: name, device, inode, size and change time of each.
_Signature = tuple[tuple[str, int, int, int, int], ...]

#: Change when the server gets another time zone, or an update brings other rules for zones.
ZONE_FILES = [models.LOCALTIME, *(f"{path}/tzdata.zi" for path in zoneinfo.TZPATH)]

_LAST_GOOD = "last-good-map.json"
_VERSION = 1


class LastMap:
    """The last good map, kept on disk for a broker that starts while the map is broken.

    Otherwise a typing mistake, which a running broker only reports, would shut everybody out at the
    next upgrade.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _LAST_GOOD

    def write(self, sources: list[Source]) -> None:
        """Keep the texts and names of these files, in one step. Raises OSError."""
        files = [[name, data.decode()] for data, name in sources]
        text = json.dumps({"v": _VERSION, "files": files}, ensure_ascii=False)
        replace(self._path, text.encode())

    def read(self) -> list[Source]:
        """Empty if there is none, or none that can be trusted."""
        try:
            kept = json.loads(read_trusted(str(self._path)))
            if kept["v"] != _VERSION:
                return []
            return [(text.encode(), name) for name, text in kept["files"]]
        except (MapError, ValueError, TypeError, KeyError, AttributeError):
            return []


class MapStore:
    """`current` is always a good map: a bad one is logged and never replaces it.

    `sources` are the files that it was read from. `loaded` is when it came into force. `refused`
    says what is wrong with the map's files, if they have changed since then and are not valid.
    """

    def __init__(self, path: Path, audit: Audit, last: LastMap) -> None:
        """Raises MapError if neither the map nor the last good one can be used."""
        self.path = path
        self._audit = audit
        self._last = last
        self._seen = self._signature()
        self._zones = _zones()
        self.refused: MapError | None = None
        try:
            self._take(*self._load())
        except MapUnreadableError:
            raise  # a map taken away on purpose must not come back
        except MapError as error:
            self._take(*self._last_good(error))
            self._refuse(error)

    @property
    def grants(self) -> int:
        return sum(len(vm.allow) for vm in self.current.vms.values())

    def age(self) -> float | None:
        """Seconds since the last change of the map's files; None if they cannot be read."""
        try:
            written = max(os.stat(file).st_mtime for file in map_files(self.path))
        except (OSError, MapError):
            return None
        return max(0.0, time.time() - written)

    async def changed(self) -> bool:
        """Whether the files have changed since the last load, and are no longer being written."""
        now = self._signature()
        if now == self._seen and _zones() == self._zones:
            return False
        await asyncio.sleep(0.1)  # an editor may be in the middle of writing
        return now == self._signature()

    async def reload(self) -> bool:
        """Load the map again, and say whether it was good. In a thread: a large map takes long."""
        self._seen = self._signature()
        if self._zones != (zones := _zones()):
            self._zones = zones
            zoneinfo.ZoneInfo.clear_cache()
            time.tzset()
        try:
            self._take(*await asyncio.to_thread(self._load))
        except MapError as error:
            self._refuse(error)
            return False
        return True

    def _load(self) -> tuple[VmMap, list[Source]]:
        sources, unreadable = read_sources(self.path)
        good = parse_sources(sources, unreadable)
        try:
            self._last.write(sources)
        except OSError as error:
            reason = f"the last good map cannot be kept ({os_reason(error)})"
            self._audit.write("map", decision="allow", file=str(self.path), reason=reason)
        return good, sources

    def _last_good(self, error: MapError) -> tuple[VmMap, list[Source]]:
        """The map that an earlier broker kept. Raises `error` if there is none."""
        sources = self._last.read()
        if not sources:
            raise error
        try:
            return parse_sources(sources), sources
        except MapError:  # an older version may have had other rules
            raise error from None

    def _take(self, good: VmMap, sources: list[Source]) -> None:
        self.current, self.sources = good, sources
        self.refused, self.loaded = None, datetime.now(UTC)
        about = {"file": str(self.path), "vms": len(good.vms), "grants": self.grants}
        self._audit.write("map", decision="allow", **about)

    def _signature(self) -> _Signature:
        try:
            return tuple(map(_signature_of, map_files(self.path)))
        except (OSError, MapError):
            return ()

    def _refuse(self, error: MapError) -> None:
        self.refused = error
        self._audit.write(
            "map",
            decision="deny",
            file=str(self.path),
            reason="the map is not valid; the last good one stays in force",
            problems=[str(problem) for problem in error.problems[:20]],
        )


def _zones() -> _Signature:
    return tuple(_signature_of(file) for file in ZONE_FILES if os.path.exists(file))


def _signature_of(file: str) -> tuple[str, int, int, int, int]:
    found = os.stat(file)
    return (file, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
