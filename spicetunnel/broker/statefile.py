"""Small files of the broker's own: written whole or not at all, and readable by nobody else."""

import os
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Put `data` at `path`, in one step; `durable`: it is on the disk when this returns.

    Raises OSError.
    """
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb", opener=_private) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.rename(path)
    if durable:
        _sync(path.parent)


def _private(path: str, _flags: int) -> int:
    return os.open(path, _NEW, 0o600)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
