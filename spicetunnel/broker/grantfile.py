"""The temporary grants' one file, in the state directory: what outlives the broker and a boot."""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from spicetunnel.broker.statefile import replace
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
        if self._held is not None:
            return
        try:
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(self._directory, error) from None
        try:
            self._check(fd)
        except StateError:
            os.close(fd)
            raise
        self._held = fd

    def _check(self, fd: int) -> None:
        found = os.fstat(fd)
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            reason = f"{self._directory} must be the broker's own, and writable by no one else"
            raise StateError(reason, f"chmod go-w {self._directory}")
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise _unusable(self._directory, PermissionError(0, "the broker may not write there"))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = f"another broker keeps its grants in {self._directory}"
            raise StateError(reason, "give each a --state-dir of its own") from None


def _unusable(path: Path, error: OSError) -> StateError:
    why = (error.strerror or "no reason given").lower()
    hint = "create the directory, owned by the broker's user (spicetunneld --state-dir)"
    return StateError(f"{path} cannot be used ({why})", hint)
