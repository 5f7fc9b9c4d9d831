"""Reads the audit log, from the journal or from a file, line by line."""

import json
import os
import subprocess
import sys
import tempfile
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
    """There is no journalctl, no journal, or nothing of the broker's in it."""

    exit_code = os.EX_UNAVAILABLE


class JournalClosedError(SpicetunnelError):
    """The journal is not for this person to read."""

    exit_code = os.EX_NOPERM


#: What journalctl says on stderr, in English only, at exit code 0 too: systemd's journal-util.c.
_CLOSED = ("insufficient permissions", "not seeing messages from other users")
_NO_FILES = "No journal files were found"
_MAX_SAID = 64 * 1024  # bytes of its stderr


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
    """The entries of `source`. `own` counts those read so far, `foreign` the other lines.

    `is_file`: not the journal, of which `from_journal` says why it has nothing.
    """

    def __init__(self, source: IO[bytes], *, is_file: bool = True) -> None:
        self._source = source
        self.is_file = is_file
        self.own = 0
        self.foreign = 0

    def __iter__(self) -> Iterator[Entry]:
        for line in _lines(self._source):
            entry = _parse(line)
            if entry is None:
                self.foreign += 1
            else:
                self.own += 1
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

    Raises NoJournalError, JournalClosedError, and SpicetunnelError if journalctl fails.
    """
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill up
        try:
            journal = subprocess.Popen(
                JOURNAL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
        except OSError:
            raise NoJournalError("journalctl is not installed", "--file reads a log file") from None
        with journal:
            try:
                entries = Entries(_stdout(journal), is_file=False)
                yield entries
            except BaseException:
                journal.kill()
                raise
        said.seek(0)
        _require_whole(journal.returncode, said.read(_MAX_SAID).decode(errors="replace"), entries)


def _require_whole(code: int, said: str, entries: Entries) -> None:
    """Raises what keeps the journal from being the whole log."""
    if any(words in said for words in _CLOSED):
        reason = "you may not read this server's journal"
        raise JournalClosedError(reason, "run it as root, or as a member of systemd-journal")
    if _NO_FILES in said:
        raise NoJournalError("this server has no journal", "--file reads a log file")
    if code:
        sys.stderr.write("".join(f"{printable(line)}\n" for line in said.splitlines()))
        raise SpicetunnelError("journalctl failed", "see its message above")
    if not entries.own:
        reason = "the journal has no line of spicetunneld.service that you may read"
        hint = "only root and systemd-journal read all of it; --file reads a log kept elsewhere"
        raise NoJournalError(reason, hint)


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
    hint = "run it as root" if isinstance(error, PermissionError) else "correct its path"
    return NoLogError(f"{printable(path)} cannot be read: {os_reason(error)}", hint)
