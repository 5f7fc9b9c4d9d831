"""The private directory that holds the tunnel's local end: nobody else on this PC gets in."""

import contextlib
import os
import shutil
import stat

from spice_connect.errors import UnavailableError
from spice_connect.names import MAX_SOCKET_PATH, PLAIN_PATH

FALLBACK = "/tmp"  # noqa: S108 - only to make a fresh directory of mode 0700 in it
NAME = "spice-"
RANDOM_BYTES = 6
SOCKET = "spice"  # constant and short: no VM's and no user's name may make the path too long


def base() -> str:
    """Where to make the directory: the session's own place if it is sound, else /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if _fits(runtime) and _is_mine_alone(runtime):
        return runtime
    if _keeps_entries(FALLBACK):
        return FALLBACK
    raise UnavailableError(
        "no safe place for the tunnel's socket",
        f"{FALLBACK} must be root's and sticky, or XDG_RUNTIME_DIR yours alone (mode 0700)",
    )


def make(parent: str) -> str:
    """A fresh directory of ours; an existing one is never taken over."""
    path = f"{parent}/{NAME}{os.urandom(RANDOM_BYTES).hex()}"
    os.mkdir(path, 0o700)
    if not _is_mine_alone(path):  # an odd umask, an odd file system
        os.rmdir(path)
        raise PermissionError(f"{path} did not become private")
    return path


def remove(path: str) -> None:
    """All that is in the directory, and it; where a link leads to, all stays."""
    shutil.rmtree(path)


def clear_socket(directory: str) -> None:
    """An ended ssh leaves its socket, and the next one would not bind in its place."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path(directory))


def socket_path(directory: str) -> str:
    return f"{directory}/{SOCKET}"


def _fits(parent: str) -> bool:
    longest = socket_path(f"{parent}/{NAME}{'0' * 2 * RANDOM_BYTES}")
    return PLAIN_PATH.fullmatch(parent) is not None and len(longest) <= MAX_SOCKET_PATH


def _is_mine_alone(path: str) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    mine = info.st_uid == os.geteuid()
    return mine and stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o700


def _keeps_entries(path: str) -> bool:
    """Whether nobody else can rename our directory away and put theirs in its place."""
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (0, os.geteuid()):
        return False
    return bool(info.st_mode & stat.S_ISVTX) or not info.st_mode & 0o022
