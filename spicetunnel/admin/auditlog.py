"""Reads the audit log, from the journal or from a file, line by line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from spicetunnel.admin.options import YEARS
from spicetunnel.common.errors import SpicetunnelError, os_reason
from spicetunnel.policy.problems import printable

JOURNAL = ("journalctl", "--unit", "spicetunneld.service", "--output", "cat", "--no-pager")
_MAX_LINE = 256 * 1024  # bytes; the broker's lines have some hundreds


class NoLogError(SpicetunnelError):
    """The log file cannot be read."""

    exit_code = os.EX_NOINPUT


class NoJournalError(SpicetunnelError):
    """journalctl is not installed."""

    exit_code = os.EX_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. `fields` is the whole line; none of it is trusted."""

    time: datetime
    event: str
    fields: dict[str, Any]

    def word(self, key: str) -> str:
        """The text under `key`; empty if there is none."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float | None:
        """The number under `key`, at least 0 and below 2**63; None if there is none."""
        value = self.fields.get(key)
        return value if isinstance(value, int | float) and 0 <= value < 2**63 else None


class Entries:
    """The entries of `source`. `foreign` counts the other lines read so far."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.foreign = 0

    def __iter__(self) -> Iterator[Entry]:
        for line in _lines(self._source):
            entry = _parse(line)
            if entry is None:
                self.foreign += 1
            else:
                yield entry


@contextmanager
def from_file(path: str) -> Iterator[Entries]:
    """The entries of the file at `path`, or of stdin for `-`. Raises NoLogError."""
    if path == "-":
        yield Entries(sys.stdin.buffer)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only its opening is tried
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        yield Entries(file)


@contextmanager
def from_journal() -> Iterator[Entries]:
    """All entries of the journal: a session that is open at ten may have begun days before.

    Raises NoJournalError, and SpicetunnelError if journalctl fails.
    """
    try:
        journal = subprocess.Popen(JOURNAL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError:
        raise NoJournalError("journalctl is not installed", "--file reads a log file") from None
    with journal:
        try:
            yield Entries(_stdout(journal))
        except BaseException:
            journal.kill()
            raise
    if journal.returncode:
        raise SpicetunnelError("journalctl failed", "see its message above")


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    return process.stdout


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    """The lines of `source`. A line over the limit is not the broker's: its pieces become empty."""
    begins = True
    while piece := source.readline(_MAX_LINE):
        ends = piece.endswith(b"\n") or len(piece) < _MAX_LINE
        yield piece if begins and ends else b""
        begins = ends


def _parse(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        time, event = datetime.fromisoformat(fields["time"]), fields["event"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(event, str) or time.tzinfo is None or time.year not in YEARS:
        return None
    return Entry(time, event, fields)


def _unreadable(path: str, error: OSError) -> SpicetunnelError:
    return NoLogError(f"{printable(path)} cannot be read: {os_reason(error)}")
