"""Files of the person's that others read while we write them, and where they lie."""

import contextlib
import os


def base_directory(variable: str, default: str) -> str:
    """Of the XDG specification; a relative path there is to be ignored."""
    base = os.environ.get(variable, "")
    return base if os.path.isabs(base) else os.path.expanduser(default)


def replace(path: str, text: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """In one step: a reader finds the old text or the new one. `durable`: a power cut too."""
    new = f"{os.path.dirname(path)}/.{os.urandom(6).hex()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as stream:
            stream.write(text)
            os.fchmod(fd, mode)
            if durable:
                stream.flush()
                os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
