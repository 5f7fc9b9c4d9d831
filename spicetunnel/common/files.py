"""Files and directories of a daemon's own.

A file is written whole or not at all, and readable by nobody else. A directory is trusted, and
held by one daemon at a time: so nobody listens at a socket that is in it already.
"""

import fcntl
import os
import pwd
import socket

from spicetunnel.common.errors import SpicetunnelError, os_reason

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(path: str | os.PathLike[str], data: bytes, *, durable: bool = False) -> None:
    """Write `data` to `path` in one step. `durable`: it is on the disk when this returns.

    Raises OSError.
    """
    directory, name = os.path.split(path)
    new = os.path.join(directory, f".{name}.new")
    with open(new, "wb", opener=_private) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(new, path)
    if durable:
        sync_directory(directory)


def _private(path: str, _flags: int) -> int:
    return os.open(path, _NEW, 0o600)


def sync_directory(directory: str) -> None:
    """Have what was renamed in it on the disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def listen_at(path: str | os.PathLike[str], kind: int, backlog: int) -> socket.socket:
    """A socket of this kind that listens at `path`, in place of one that nobody listens at.

    The umask says who may connect. Raises OSError.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(os.fspath(path))
    listener.listen(backlog)
    return listener


def hold_directory(
    path: str | os.PathLike[str], error: type[SpicetunnelError] = SpicetunnelError
) -> int:
    """Take the directory at `path` for this process; the lock lasts while the returned descriptor
    is open.

    Raises `error` where it is missing, where somebody else could write there, or where another
    process holds it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _require_trusted(fd, path, error)
            # Lock a private file, not the directory: anybody who can open it could lock it.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            return _locked(os.open("lock", flags, 0o600, dir_fd=fd), path, error)
        finally:
            os.close(fd)
    except OSError as failure:
        raise error(
            f"{path} cannot be used ({os_reason(failure)})",
            "create the directory, owned by the service's user",
        ) from None


def _require_trusted(fd: int, path: str | os.PathLike[str], error: type[SpicetunnelError]) -> None:
    found = os.fstat(fd)
    if found.st_uid not in {0, os.geteuid()}:
        whose, who = user_name(found.st_uid), user_name(os.geteuid())
        raise error(
            f"{path} belongs to {whose}, and this runs as {who}",
            "start the service with systemctl, or as the directory's owner",
        )
    if found.st_mode & 0o022:
        raise error(f"{path} may be writable by no one else", f"chmod go-w {path}")


def user_name(uid: int) -> str:
    """Who that is, in words."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _locked(lock: int, path: str | os.PathLike[str], error: type[SpicetunnelError]) -> int:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise error(f"another process serves {path}", "stop it first") from None
    return lock
