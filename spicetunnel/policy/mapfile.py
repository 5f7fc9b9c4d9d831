"""Reads a file only if nobody but root and this user could have written it."""

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from spicetunnel.common.errors import os_reason
from spicetunnel.common.files import user_name
from spicetunnel.policy.problems import MapError, MapUnreadableError, Problem, printable

MAX_BYTES = 4 * 1024 * 1024

_OPEN_DIRECTORY = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
# Non-blocking, so that opening a FIFO returns at once instead of waiting for a writer.
_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

_Words = tuple[str, str]  # message and hint


def read_trusted(path: str, *, secret: bool = False) -> bytes:
    """The bytes of the file at `path`.

    Symlinks are followed first, because admins keep the real file elsewhere (a git checkout, a
    configuration manager's store). Then the target is checked: whoever can redirect a link still
    cannot make us read a file that they wrote. Directory and file are opened once each, and those
    descriptors are checked: no name is looked up twice. A `secret` file must not be readable by
    others either.

    Raises MapUnreadableError (no such file, no permission) or MapError (not to be trusted).
    """
    try:
        directory, name = os.path.split(os.path.realpath(path, strict=True))
        with _opened(directory, _OPEN_DIRECTORY) as dir_fd, _opened(name, _OPEN_FILE, dir_fd) as fd:
            _check(dir_fd, directory, fd, path, secret=secret)
            return _read(fd, path)
    except OSError as error:
        words = f"cannot be read: {os_reason(error)}"
        problem = Problem(printable(path), 0, 0, words, cure(error, path))
        raise MapUnreadableError([problem]) from error


def is_forbidden(problem: Problem) -> bool:
    """Whether the problem is that this user may not read the file."""
    return problem.message == f"cannot be read: {os.strerror(errno.EACCES).lower()}"


def with_hint_if_forbidden(error: MapError, hint: str) -> MapError:
    """The same error, with another hint where this user may not read a file."""
    told = (replace(each, hint=hint) if is_forbidden(each) else each for each in error.problems)
    return type(error)(told)


def cure(error: OSError, path: str) -> str:
    """What helps if the file at `path` cannot be read."""
    if isinstance(error, PermissionError):
        shown = f"'namei -l {printable(shlex.quote(path))}' shows the owner and mode of each step"
        return f"let {user_name(os.geteuid())} read it: {shown}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "create the file, or correct its path"
    return "it must be a plain file"


@contextmanager
def _opened(name: str, flags: int, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _check(dir_fd: int, directory: str, fd: int, path: str, *, secret: bool) -> None:
    distrust = [
        *_distrust_directory(os.fstat(dir_fd), printable(directory)),
        *_distrust_file(os.fstat(fd), printable(path)),
        *(_distrust_secret(os.fstat(fd), printable(path)) if secret else ()),
    ]
    if distrust:
        raise MapError(Problem(printable(path), 0, 0, *words) for words in distrust)


def _read(fd: int, path: str) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        words = f"is larger than {MAX_BYTES // (1024 * 1024)} MiB"
        hint = "no file of spicetunnel's is so large: correct its path, or divide it"
        raise MapError([Problem(printable(path), 0, 0, words, hint)])
    return data


def _distrust_directory(status: os.stat_result, path: str) -> Iterator[_Words]:
    """Whoever may write to the directory may replace the file."""
    if not _is_ours(status):
        message = f"lies in {path}, which belongs to {user_name(status.st_uid)}, not to root"
        yield message, f"chown root {shlex.quote(path)}"
    # In a sticky directory (/tmp) others can add names, but not replace ours.
    if _others_may_write(status) and not status.st_mode & stat.S_ISVTX:
        yield f"lies in {path}, which others may write to", f"chmod go-w {shlex.quote(path)}"


def _distrust_file(status: os.stat_result, path: str) -> Iterator[_Words]:
    if stat.S_ISDIR(status.st_mode):
        yield "is a directory, not a file", "name the file in it"
        return
    if not stat.S_ISREG(status.st_mode):
        yield "is not a regular file", "it must be a plain file"
        return
    if not _is_ours(status):
        yield (
            f"belongs to {user_name(status.st_uid)}, not to root",
            f"chown root {shlex.quote(path)}",
        )
    if _others_may_write(status):
        yield "may be written by others", f"chmod go-w {shlex.quote(path)}"


def _distrust_secret(status: os.stat_result, path: str) -> Iterator[_Words]:
    # As for writing, an ACL shows as the group's bit.
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield "may be read by others", f"chmod go= {shlex.quote(path)}"


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in {0, os.geteuid()}


def _others_may_write(status: os.stat_result) -> bool:
    # An ACL that lets anybody else write shows as the group's w bit.
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
