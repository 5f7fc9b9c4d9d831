"""Who sits at this host: whoever holds the active session of one of its local seats.

systemd-logind writes what it knows to files of KEY=VALUE lines, which everybody may read and which
it replaces whole, by rename(2): `seats/SEAT` names the seat's active session, `sessions/ID`
describes a session. sd_seat_get_active(3) and sd_session_is_active(3) are readers of just these
files. What stands in them: seat_save() and session_save() in systemd's src/login; how it is
written: src/basic/env-file.c. The files call themselves private, so every doubt about one of them
means that nobody sits there.
"""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

INTERVAL = 0.25  # seconds between two looks; each takes some 0.04 ms a seat

_MAX_BYTES = 64 * 1024  # the real ones have a few hundred
_SEAT_NAME = re.compile(r"seat[A-Za-z0-9_-]+")  # and not logind's temporary files, `.#seat0...`
_SESSION_ID = re.compile(r"[A-Za-z0-9]+")
_UID = re.compile(r"[0-9]{1,10}")
_LINE = re.compile(r"""([A-Z][A-Z0-9_]*)=(["']?)(.*)\2""")

# A person at the seat now: the session is in the foreground, local, and not being closed (a session
# that is `closing` may stay the seat's active one to its end). A `greeter` or `lock-screen` belongs
# to nobody in particular, and a `manager` is not a login.
_PERSON_IS_THERE = {"ACTIVE": "1", "STATE": "active", "REMOTE": "0", "CLASS": "user"}

_Fields = dict[str, str]


class Console:
    """The people at the local seats, by systemd-logind's files below `root`.

    Every seat counts that logind knows, not seat0 alone: on a multi-seat host the person at seat1
    sits at this host too. A screen lock that runs inside a session (LockedHint) changes nothing:
    the seat is still that person's. One that switches to a greeter hands the seat over to it. As
    logind's files outlive it, they tell the last it knew while it is being restarted.
    """

    def __init__(self, root: Path = Path("/run/systemd"), owner: int = 0) -> None:
        """`owner` is the uid that logind runs as: files of others are ignored."""
        self._root = root
        self._owner = owner

    def uids(self) -> frozenset[int]:
        """The uids of the people at the console now, read afresh. Never raises.

        Empty without a logind, and without any seat's file that is beyond doubt.
        """
        holders = map(self._holder, self._seats())
        return frozenset(uid for uid in holders if uid is not None)

    async def follow(self) -> AsyncIterator[frozenset[int]]:
        """`uids()` now, and again each time it is another set, within INTERVAL seconds.

        Never ends by itself. What has changed and changed back between two looks is not seen.
        """
        before = None
        while True:
            now = self.uids()
            if now != before:
                before = now
                yield now
            await asyncio.sleep(INTERVAL)

    def _seats(self) -> list[str]:
        try:
            return list(filter(_SEAT_NAME.fullmatch, os.listdir(self._root / "seats")))
        except OSError:
            return []

    def _holder(self, seat: str) -> int | None:
        """The uid of the person at `seat`; None for nobody."""
        try:
            found = self._read("seats", seat)
            uid = _only(_UID, found["ACTIVE_UID"])
            session = self._read("sessions", _only(_SESSION_ID, found["ACTIVE"]))
        except (OSError, ValueError, KeyError):
            return None
        # logind writes the two files one after the other: between them they may disagree.
        wanted = {**_PERSON_IS_THERE, "SEAT": seat, "UID": uid}
        return int(uid) if wanted.items() <= session.items() else None

    def _read(self, directory: str, name: str) -> _Fields:
        """Raises OSError if there is no such file, ValueError if it cannot be trusted."""
        with open(self._root / directory / name, "rb", opener=_open_itself) as file:
            self._require_trusted(os.fstat(file.fileno()))
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError("too large")
        return _parse(data.decode())

    def _require_trusted(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_uid != self._owner or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("others may have written it")


def _open_itself(path: str, flags: int) -> int:
    """Open without following a symlink, and without waiting for the writer of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _only(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError("malformed")
    return value


def _parse(text: str) -> _Fields:
    """Raises ValueError for a line that is no assignment, and for a second one of the same key:
    no value can bring a line break and so a line of its own into the file unnoticed.
    """
    fields: _Fields = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] in fields:
            raise ValueError("malformed")
        fields[match[1]] = match[3]
    return fields
