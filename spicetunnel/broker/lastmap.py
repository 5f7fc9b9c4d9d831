"""The last good map, kept on disk: a broker that starts while the map is broken goes on with it.

Else a typing mistake that a running broker only complains of would, at the next upgrade, shut
everybody out.
"""

import json
from pathlib import Path

from spicetunnel.broker.statefile import replace
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.reading import Source

FILE = "last-good-map.json"
_VERSION = 1


class LastMap:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE

    def write(self, sources: list[Source]) -> None:
        """Keep these files' texts, with their names, in one step. Raises OSError."""
        files = [[name, data.decode()] for data, name in sources]
        text = json.dumps({"v": _VERSION, "files": files}, ensure_ascii=False)
        replace(self._path, text.encode())

    def read(self) -> list[Source]:
        """Empty where there is none, or none that can be believed."""
        try:
            kept = json.loads(read_trusted(str(self._path)))
            if kept["v"] != _VERSION:
                return []
            return [(text.encode(), name) for name, text in kept["files"]]
        except (MapError, ValueError, TypeError, KeyError, AttributeError):
            return []
