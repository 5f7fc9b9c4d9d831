"""The temporary grants in force, and their one file in the state directory: what outlives the
broker and a boot.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import BusyError, SpicetunnelError, os_reason
from spicetunnel.common.files import hold_directory, replace
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.temporary import (
    FILE,
    LONGEST,
    MOST,
    TemporaryGrant,
    read_grants,
    written,
)


class StateError(SpicetunnelError):
    """The state directory, or the file in it, cannot be used."""

    exit_code = os.EX_CANTCREAT


class GrantFile:
    """Locked by one broker at a time: a second one would bring back what the first has revoked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE
        self._held: int | None = None

    def read(self) -> tuple[TemporaryGrant, ...]:
        """Raises StateError, or ValueError if the file is damaged or cannot be trusted."""
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
        """Rename a bad file, so that it can be looked at; its new path, None if that failed."""
        aside = self._path.with_name(f"{FILE}.bad")
        try:
            return self._path.rename(aside)
        except OSError:
            return None

    def _hold(self) -> None:
        if self._held is None:
            self._held = hold_directory(self._directory, StateError)


def _unusable(path: Path, error: OSError) -> StateError:
    hint = "create the directory, owned by the broker's user (spicetunneld --state-dir)"
    return StateError(f"{path} cannot be used ({os_reason(error)})", hint)


class Grants:
    """`current` are in force. Without a good file there are none."""

    def __init__(self, directory: Path, audit: Audit, now: datetime) -> None:
        self._file = GrantFile(directory)
        self._audit = audit
        self.current = self._load(now)

    def __iter__(self) -> Iterator[TemporaryGrant]:
        return iter(self.current)

    def add(self, grant: TemporaryGrant) -> None:
        """Raises BusyError or StateError; then the grant is not in force."""
        if len(self.current) >= MOST:
            reason = f"there are {MOST} temporary grants already"
            raise BusyError(reason, "revoke some, or write what lasts into the map")
        self._file.write((*self.current, grant))
        self.current = (*self.current, grant)

    def revoke(self, gone: Collection[TemporaryGrant]) -> None:
        """Take them out of force, even if the file cannot be written. Raises StateError."""
        self.current = self._without(gone)
        try:
            self._file.write(self.current)
        except StateError as error:
            self._file.remove()  # after a restart, better no grant than a revoked one
            reason = f"revoked, but {error.reason}"
            hint = "a restart of the broker would end the other temporary grants too"
            raise StateError(reason, hint) from None

    def expire(self, now: datetime) -> None:
        """Remove those that have expired."""
        over = [each for each in self if each.until <= now]
        self.current = self._without(over)
        self._log_end(over, "expired")
        try:
            self._file.write(self.current)
        except StateError as error:  # harmless: expired ones are left out when the file is read
            self._audit.write("fault", reason=error.reason)

    def _without(self, gone: Collection[TemporaryGrant]) -> tuple[TemporaryGrant, ...]:
        return tuple(each for each in self if each not in gone)

    def _load(self, now: datetime) -> tuple[TemporaryGrant, ...]:
        try:
            found = self._file.read()
        except StateError as error:
            self._audit.write("grants", decision="deny", reason=error.reason, hint=error.hint)
            return ()
        except ValueError as error:
            reason = f"no temporary grant is in force: {error}"
            self._audit.write("fault", reason=reason, kept=self._file.put_aside())
            return ()
        self._log_end([each for each in found if each.until <= now], "expired")
        early = [each for each in found if each.until > now + LONGEST]
        self._log_end(early, "the clock has been set back")
        return tuple(each for each in found if now < each.until <= now + LONGEST)

    def _log_end(self, over: Collection[TemporaryGrant], reason: str) -> None:
        for each in over:
            about = {"grant": each.id, "user": each.user, "vm": each.vm}
            self._audit.write("grant-end", **about, reason=reason)
