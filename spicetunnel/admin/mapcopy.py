"""A file of the map taken out to be edited, and put back in one step: nobody ever reads half of it.

The copy lies in a private directory beside the file, so that the swap is a rename, under a name
that `vms.d/*.yaml` does not match.
"""

import dataclasses
import fcntl
import os
import pwd
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable, quote
from spicetunnel.policy.vmmap import VmMap, load_map, map_files

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_DIRECTORY = "vms.d"
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class CannotWriteError(SpicetunnelError):
    """The map, or what stands beside it while it is edited, may not be written."""

    exit_code = os.EX_CANTCREAT


class ChangedError(SpicetunnelError):
    """Somebody else wrote the map meanwhile."""

    exit_code = os.EX_TEMPFAIL


def require_main(map_file: str) -> None:
    """Raises UsageError for a part, which is not a whole map."""
    if os.path.basename(os.path.dirname(os.path.abspath(map_file))) == _PART_DIRECTORY:
        hint = "give --map the main file, and edit a part by its name"
        raise UsageError(f"{printable(map_file)} is a part of a map", hint)


def part_of(map_file: str, name: str) -> str:
    """The file of vms.d that is called so, with or without its `.yaml`; it may be a new one."""
    stem = name.removesuffix(".yaml")
    if not _PART_NAME.fullmatch(stem):
        hint = "'spicetunnel edit lab' edits vms.d/lab.yaml beside the map"
        raise UsageError(f"a part must be a plain name, not {quote(name)}", hint)
    directory = os.path.join(os.path.dirname(map_file), _PART_DIRECTORY)
    if not os.path.isdir(directory):
        hint = f"mkdir -m 755 {shlex.quote(directory)}"
        raise CannotWriteError(f"{printable(directory)} is no directory", hint)
    return os.path.join(directory, f"{stem}.yaml")


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
    """A file of the map as it was read: equal only to the very same file."""

    path: str
    target: str  # where the path leads, through whatever symlinks
    inode: tuple[int, int] | None  # None: it is yet to be
    data: bytes

    @classmethod
    def read(cls, path: str, *, may_be_new: bool = False) -> Self:
        """Raises MapError for a file that the broker would not trust, or that is not there."""
        target = os.path.realpath(path)
        if may_be_new and not os.path.lexists(path):
            return cls(path, target, None, b"")
        data = read_trusted(path)
        status = os.stat(target)
        return cls(path, target, (status.st_dev, status.st_ino), data)

    def is_unchanged(self) -> bool:
        try:
            return Original.read(self.path, may_be_new=self.inode is None) == self
        except (MapError, OSError):
            return False


class Copy:
    """The copy that the admin edits. It stays until `discard` or `swap`: nothing is lost."""

    def __init__(self, original: Original, map_file: str) -> None:
        self.original = original
        self._map = map_file  # its main file, which may be the original
        directory, name = os.path.dirname(original.target), os.path.basename(original.path)
        self._directory = tempfile.mkdtemp(prefix=f".{name}.edit-", dir=directory)
        self._checked = os.path.join(self._directory, "checked")
        self._candidate = self._in_checked(original.path)
        self.file = os.path.join(self._directory, name)
        _write(self.file, original.data)

    def is_kept(self) -> bool:
        return os.path.exists(self.file)

    def is_changed(self) -> bool:
        return self._read() != self.original.data

    def check(self) -> VmMap:
        """Check what the editor left, together with the map's other files.

        From here on, what was checked is what `swap` puts in. Raises MapError, in which the files
        bear their real names.
        """
        shutil.rmtree(self._checked, ignore_errors=True)
        for directory in (self._checked, os.path.join(self._checked, _PART_DIRECTORY)):
            os.mkdir(directory, 0o700)
        for file in map_files(self._map):
            if (place := self._in_checked(file)) != self._candidate:
                os.symlink(os.path.abspath(file), place)
        _write(self._candidate, self._read())
        try:
            return load_map(self._in_checked(self._map))
        except MapError as error:
            raise type(error)(map(self._renamed, error.problems)) from None

    def swap(self) -> None:
        """Put what was checked in the original's place, with its owner, mode and attributes; a new
        part gets those of the map.

        Raises ChangedError where the original is no longer what was copied.
        """
        if not self.original.is_unchanged():
            reason = f"{printable(self.original.path)} was changed by someone else meanwhile"
            raise ChangedError(reason, "bring the two together, then edit again")
        fd = os.open(self._candidate, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _dress(fd, self.original.target if self.original.inode else self._map)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._candidate, self.original.target)
        _sync_directory(os.path.dirname(self.original.target))
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _in_checked(self, file: str) -> str:
        """Where a file of the map stands in the directory that is checked."""
        return os.path.join(self._checked, os.path.relpath(file, os.path.dirname(self._map) or "."))

    def _read(self) -> bytes:
        with open(self.file, "rb") as file:
            return file.read()

    def _renamed(self, problem: Problem) -> Problem:
        """The problem with the directory of the real map in place of ours."""
        ours = printable(os.path.join(self._checked, ""))
        real = printable(os.path.join(os.path.dirname(self._map), ""))
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
