"""Shuts a user out of a socket for a while, by the access control list of the socket's file.

Who connects as fast as they can fills the backlog, and sshd's connect, which does not wait, then
fails for everybody else, however fast we accept. So the kernel refuses them. Nothing has to be
set up for it: the socket's file is ours, also if the service manager made it.

Source of the attribute's format: acl(5), and linux/posix_acl_xattr.h.
"""

import asyncio
import os
import stat
import struct
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import os_reason

SHORTEST, LONGEST = 10.0, 300.0  # seconds; each time twice as long
_MOST = 100  # users at once: the list has a limit of a file system's block

_NAME = "system.posix_acl_access"
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, permissions, uid or gid
_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF

_Entry = tuple[int, ...]


class Bans:
    """The users who may not connect to the socket at `path` for now."""

    def __init__(self, path: Path, audit: Audit) -> None:
        self._path = path
        self._audit = audit
        self._banned: set[int] = set()
        self._seconds: dict[int, float] = {}  # of the last ban
        if self._has_list():
            self._write()  # without those of the broker before

    def add(self, uid: int) -> None:
        if uid in self._banned or len(self._banned) >= _MOST:
            return
        seconds = min(2 * self._seconds.pop(uid, SHORTEST / 2), LONGEST)
        self._seconds[uid] = seconds
        self._banned.add(uid)
        if not self._write():
            return
        reason = f"it floods {self._path.name}: shut out for {seconds:.0f} s"
        self._audit.write("refused", uid=uid, reason=reason)
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._lift, uid)
        loop.call_later(seconds + 2 * LONGEST, self._forget, uid, seconds)

    def _lift(self, uid: int) -> None:
        self._banned.discard(uid)
        self._write()

    def _forget(self, uid: int, seconds: float) -> None:
        """Begin with a short ban again if there was no other since."""
        if self._seconds.get(uid) == seconds and uid not in self._banned:
            del self._seconds[uid]

    def _has_list(self) -> bool:
        try:
            return _NAME in os.listxattr(self._path)
        except OSError:
            return False

    def _write(self) -> bool:
        """Set the list; False where the file system has none."""
        try:
            others = [each for each in self._entries() if not _is_ban(each)]
            entries = sorted([*others, *((_USER, 0, uid) for uid in self._banned)], key=_order)
            data = b"".join(_ENTRY.pack(*each) for each in entries)
            os.setxattr(self._path, _NAME, _HEADER.pack(_VERSION) + data)
        except OSError as error:
            self._audit.repeated("fault", f"cannot shut a user out: {os_reason(error)}")
            return False
        return True

    def _entries(self) -> list[_Entry]:
        """The present list, with a mask, which a list with users must have. Raises OSError."""
        try:
            data = os.getxattr(self._path, _NAME)
            entries = list(_ENTRY.iter_unpack(data[_HEADER.size :]))
        except OSError:
            mode = stat.S_IMODE(os.stat(self._path).st_mode)
            bits = ((_USER_OBJ, mode >> 6 & 7), (_GROUP_OBJ, mode >> 3 & 7), (_OTHER, mode & 7))
            entries = [(tag, permissions, _NO_ID) for tag, permissions in bits]
        if not any(tag == _MASK for tag, _, _ in entries):
            widest = max(permissions for tag, permissions, _ in entries if tag == _GROUP_OBJ)
            entries.append((_MASK, widest, _NO_ID))
        return entries


def _is_ban(entry: _Entry) -> bool:
    return entry[0] == _USER and entry[1] == 0


def _order(entry: _Entry) -> tuple[int, int]:
    return entry[0], entry[2]
