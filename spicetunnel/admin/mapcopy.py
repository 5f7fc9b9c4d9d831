"""A copy of one of the map's files to edit, put back in one step: nobody ever reads half a file.

The copy lies in a private directory beside the file, so that a rename puts it back. The directory's
name does not match `vms.d/*.yaml`.
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
from spicetunnel.common.files import sync_directory
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable, quote
from spicetunnel.policy.vmmap import VmMap, load_map, map_files

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_DIRECTORY = "vms.d"
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class CannotWriteError(SpicetunnelError):
    """The map, or a file beside it that an edit needs, cannot be written."""

    exit_code = os.EX_CANTCREAT


class ChangedError(SpicetunnelError):
    """Somebody else changed the map during the edit."""

    exit_code = os.EX_TEMPFAIL


def require_main(map_file: str) -> None:
    """Raises UsageError for a file of vms.d, which is not a whole map."""
    if os.path.basename(os.path.dirname(os.path.abspath(map_file))) == _PART_DIRECTORY:
        hint = "give --map the main file, and edit a part by its name"
        raise UsageError(f"{printable(map_file)} is a part of a map", hint)


def part_of(map_file: str, name: str) -> str:
    """The path of vms.d/NAME.yaml, which need not exist. Raises UsageError, CannotWriteError."""
    stem = name.removesuffix(".yaml")
    if not _PART_NAME.fullmatch(stem):
        hint = "'spicetunnel edit lab' edits vms.d/lab.yaml beside the map"
        raise UsageError(f"a part must be a plain name, not {quote(name)}", hint)
    directory = os.path.join(os.path.dirname(map_file), _PART_DIRECTORY)
    if not os.path.isdir(directory):
        hint = f"mkdir -m 755 {shlex.quote(directory)}"
        raise CannotWriteError(f"{printable(directory)} is not a directory", hint)
    return os.path.join(directory, f"{stem}.yaml")


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Lock the map for one admin. Raises BusyError, which names the admin who has it."""
    directory, name = os.path.split(os.path.realpath(path))
    fd = os.open(os.path.join(directory, f".{name}.lock"), _LOCK_FILE, 0o600)
    try:
        _lock(fd, path)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)  # unlocks; the file stays, or two admins could lock two files


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
    """A file of the map as it was read. Equal only to the same file with the same bytes."""

    path: str
    target: str  # the path with all symlinks followed
    inode: tuple[int, int] | None  # None: it does not exist yet
    data: bytes

    @classmethod
    def read(cls, path: str, *, may_be_new: bool = False) -> Self:
        """Raises MapError for a file that is missing, or that the broker would not trust."""
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
    """The copy that the admin edits. It stays on disk until `discard` or `swap`."""

    def __init__(self, original: Original, map_file: str) -> None:
        self.original = original
        self._map = map_file  # the main file, which may be the original
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
        """Check the edited copy together with the map's other files.

        `swap` puts in exactly what was checked here, whatever the editor does later. Raises
        MapError, which gives the files their real names.
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
            raise type(error)(map(self.renamed, error.problems)) from None

    def swap(self) -> None:
        """Replace the original by what was checked, and keep its owner, mode and attributes.

        A new part gets those of the map. Raises ChangedError if the original has changed.
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
        sync_directory(os.path.dirname(self.original.target))
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _in_checked(self, file: str) -> str:
        """The path in the checked directory of one of the map's files."""
        return os.path.join(self._checked, os.path.relpath(file, os.path.dirname(self._map) or "."))

    def _read(self) -> bytes:
        with open(self.file, "rb") as file:
            return file.read()

    def renamed(self, problem: Problem) -> Problem:
        """The problem with the real map's directory in the place of the copy's."""
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
    """Copy owner, mode and extended attributes (such as an ACL) from `target`."""
    status = os.stat(target)
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(target):
        os.setxattr(fd, name, os.getxattr(target, name))
