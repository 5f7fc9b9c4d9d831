"""The audit log as it is read: from the journal, or a file; a line at a time."""

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
_MAX_LINE = 256 * 1024  # bytes; ours have some hundreds


class NoLogError(SpicetunnelError):
    """There is no log to read."""

    exit_code = os.EX_NOINPUT


class NoJournalError(SpicetunnelError):
    """There is no journalctl."""

    exit_code = os.EX_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `fields` is all of it, and nothing in it is to be trusted."""

    time: datetime
    event: str
    fields: dict[str, Any]

    def word(self, key: str) -> str:
        """What stands there; empty for nothing, and for what is no text."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float | None:
        value = self.fields.get(key)
        return value if isinstance(value, int | float) and 0 <= value < 2**63 else None


class Entries:
    """Those of `source`. `foreign` counts the lines that are none, as far as it has been read."""

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
    """`-` is stdin. Raises SpicetunnelError."""
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
    """All that the journal has: who is there at ten may have come days ago.

    Raises SpicetunnelError.
    """
    try:
        journal = subprocess.Popen(JOURNAL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError:
        raise NoJournalError("there is no journalctl here", "--file reads a log file") from None
    with journal:
        try:
            yield Entries(_stdout(journal))
        except BaseException:
            journal.kill()
            raise
    if journal.returncode:
        raise SpicetunnelError("journalctl failed", "what it said stands above")


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    return process.stdout


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    """An endless line is none of ours: all its pieces come as empty ones."""
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
