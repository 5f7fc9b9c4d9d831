"""Small files of a daemon's own: written whole or not at all, and readable by nobody else."""

import os

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(path: str | os.PathLike[str], data: bytes, *, durable: bool = False) -> None:
    """Put `data` at `path`, in one step; `durable`: it is on the disk when this returns.

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
        _sync(directory)


def _private(path: str, _flags: int) -> int:
    return os.open(path, _NEW, 0o600)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
