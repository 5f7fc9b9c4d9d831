"""A map taken out to be edited, and put back in one step: nobody ever reads half of it.

The copy lies in a private directory beside the map, so that the swap is a rename, under a name that
`vms.d/*.yaml` does not match.
"""

import dataclasses
import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable
from spicetunnel.policy.vmmap import VmMap, load_map

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_DIRECTORY = "vms.d"


class CannotWriteError(SpicetunnelError):
    """The map, or what stands beside it while it is edited, may not be written."""

    exit_code = os.EX_CANTCREAT


class ChangedError(SpicetunnelError):
    """Somebody else wrote the map meanwhile."""

    exit_code = os.EX_TEMPFAIL


@contextmanager
def locked(path: str) -> Iterator[None]:
    """One admin at a time. Raises BusyError, which names the other one."""
    directory, name = os.path.split(os.path.realpath(path))
    fd = os.open(os.path.join(directory, f".{name}.lock"), _LOCK_FILE, 0o600)
    try:
        _lock(fd, path)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)  # which unlocks; the file stays, or two admins could lock two files


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = printable(os.pread(fd, 200, 0).decode(errors="replace")) or "another admin"
        raise BusyError(f"{printable(path)} is being edited by {holder}", "try later") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{_admin()} (pid {os.getpid()})".encode(), 0)


def _admin() -> str:
    name = os.environ.get("SUDO_USER")
    try:
        return name or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class Original:
    """The map's main file as it was read: equal only to the very same file."""

    path: str
    target: str  # where the path leads, through whatever symlinks
    inode: tuple[int, int]
    data: bytes

    @classmethod
    def read(cls, path: str) -> Self:
        """Raises MapError for a file that the broker would not trust, or that is not there."""
        if os.path.basename(os.path.dirname(os.path.abspath(path))) == _PART_DIRECTORY:
            raise UsageError(f"{printable(path)} is a part of a map", "give --map the main file")
        data = read_trusted(path)
        target = os.path.realpath(path)
        status = os.stat(target)
        return cls(path, target, (status.st_dev, status.st_ino), data)

    def is_unchanged(self) -> bool:
        try:
            return Original.read(self.path) == self
        except (MapError, OSError):
            return False


class Copy:
    """The copy that the admin edits. It stays until `discard` or `swap`: nothing is lost."""

    def __init__(self, original: Original) -> None:
        self.original = original
        directory, name = os.path.split(original.target)
        self._directory = tempfile.mkdtemp(prefix=f".{name}.edit-", dir=directory)
        self._checked = os.path.join(self._directory, "checked")
        self.file = os.path.join(self._directory, name)
        _write(self.file, original.data)

    def is_kept(self) -> bool:
        return os.path.exists(self.file)

    def is_changed(self) -> bool:
        return self._read() != self.original.data

    def check(self) -> VmMap:
        """Check what the editor left. From here on, what was checked is what `swap` puts in.

        Raises MapError, in which the map bears its real name.
        """
        shutil.rmtree(self._checked, ignore_errors=True)
        os.mkdir(self._checked, 0o700)
        parts = os.path.join(os.path.dirname(os.path.abspath(self.original.path)), _PART_DIRECTORY)
        if os.path.lexists(parts):
            os.symlink(parts, os.path.join(self._checked, _PART_DIRECTORY))
        _write(self._candidate, self._read())
        try:
            return load_map(self._candidate)
        except MapError as error:
            raise type(error)(map(self._renamed, error.problems)) from None

    def swap(self) -> None:
        """Put the checked map in the original's place, with its owner, mode and attributes.

        Raises ChangedError where the original is no longer what was copied.
        """
        if not self.original.is_unchanged():
            reason = f"{printable(self.original.path)} was changed by someone else meanwhile"
            raise ChangedError(reason, "bring the two together, then edit again")
        fd = os.open(self._candidate, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _dress(fd, self.original.target)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._candidate, self.original.target)
        _sync_directory(os.path.dirname(self.original.target))
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _candidate(self) -> str:
        return os.path.join(self._checked, os.path.basename(self.file))

    def _read(self) -> bytes:
        with open(self.file, "rb") as file:
            return file.read()

    def _renamed(self, problem: Problem) -> Problem:
        """The problem with the directory of the real map in place of ours."""
        ours = printable(os.path.join(self._checked, ""))
        real = printable(os.path.join(os.path.dirname(self.original.path), ""))
        message, hint = (text.replace(ours, real) for text in (problem.message, problem.hint))
        return dataclasses.replace(
            problem, file=problem.file.replace(ours, real), message=message, hint=hint
        )


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, _NEW_FILE, 0o600), "wb") as file:
        file.write(data)


def _dress(fd: int, target: str) -> None:
    """Owner, mode and attributes (an ACL, say) as `target` has them."""
    status = os.stat(target)
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(target):
        os.setxattr(fd, name, os.getxattr(target, name))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
