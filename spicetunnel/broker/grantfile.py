"""The temporary grants' one file, in the state directory: what outlives the broker and a boot."""

import os
from collections.abc import Iterable
from pathlib import Path

from spicetunnel.broker.statefile import replace
from spicetunnel.common.directories import hold_directory
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.temporary import FILE, TemporaryGrant, read_grants, written


class StateError(SpicetunnelError):
    """The state directory, or the file in it, cannot be used."""

    exit_code = os.EX_CANTCREAT


class GrantFile:
    """Held by one broker at a time: a second one would bring back what the first has revoked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._held: int | None = None

    def read(self) -> tuple[TemporaryGrant, ...]:
        """Raises StateError, or ValueError for a file that is not one of ours."""
        self._hold()
        if not os.path.lexists(self._path):
            return ()
        try:
            return read_grants(read_trusted(str(self._path)))
        except MapError as error:
            raise ValueError(str(error)) from None

    def write(self, grants: Iterable[TemporaryGrant]) -> None:
        """All of them, in one step, and on the disk when this returns. Raises StateError."""
        self._hold()
        try:
            replace(self._path, written(grants), durable=True)
        except OSError as error:
            raise _unusable(self._path, error) from None

    def remove(self) -> None:
        """Raises StateError."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._path, error) from None

    def put_aside(self) -> Path | None:
        """Keep a bad file, out of the way; where, if that worked."""
        aside = self._path.with_name(f"{FILE}.bad")
        try:
            return self._path.rename(aside)
        except OSError:
            return None

    def _hold(self) -> None:
        if self._held is None:
            self._held = hold_directory(self._directory, StateError)


def _unusable(path: Path, error: OSError) -> StateError:
    why = (error.strerror or "no reason given").lower()
    hint = "create the directory, owned by the broker's user (spicetunneld --state-dir)"
    return StateError(f"{path} cannot be used ({why})", hint)
