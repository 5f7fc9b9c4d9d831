"""The failures, each with one line for the user and its exit code.

The exit codes are those of sysexits(3), which Python has as `os.EX_*`.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class ClientError(Exception):
    """`reason` is one line, lower case, no full stop; `hint` says what to do, or is empty."""

    exit_code = os.EX_SOFTWARE
    announced = False  # whether a desktop notification was shown

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class UsageError(ClientError):
    """The command line is wrong."""

    exit_code = os.EX_USAGE


class ConfigError(ClientError):
    """A configuration file is wrong."""

    exit_code = os.EX_CONFIG


class UnavailableError(ClientError):
    """The host, the viewer or something else we need is not available."""

    exit_code = os.EX_UNAVAILABLE


class MachineError(ClientError):
    """The user's machine refuses: a full file system, a missing right."""

    exit_code = os.EX_OSERR

    def __init__(self, error: OSError) -> None:
        reason, hint = explain_os_error(error)
        super().__init__(reason, hint)


class LostError(UnavailableError):
    """The connection to the host was lost or cannot be made now; trying again may help."""


class ProtocolError(ClientError):
    """The answer does not follow docs/protocol.md."""

    exit_code = os.EX_PROTOCOL


class ServerError(ClientError):
    """The server refused, or ended the session; it chooses the exit code."""

    def __init__(self, reason: str, hint: str, exit_code: int) -> None:
        super().__init__(reason, hint)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal asked us to end. Not an Exception, like KeyboardInterrupt: it may come anywhere."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


_FULL = "make room there; XDG_RUNTIME_DIR and HOME say where your files are"
_NOT_YOURS = "is it yours? HOME and the XDG_ variables say where your files are"
_OS_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EROFS: _NOT_YOURS,
    errno.EMFILE: "more files are open than ulimit -n allows",
    errno.ENFILE: "too many files are open on this machine",
}


def explain_os_error(error: OSError) -> tuple[str, str]:
    """The reason, with the place where it is known, and the hint, which may be empty."""
    what = (error.strerror or str(error) or "unknown error").lower()
    places = [str(each) for each in (error.filename, error.filename2) if each]
    reason = f"cannot use {' and '.join(places)}: {what}" if places else f"system error: {what}"
    return reason, _OS_HINTS.get(error.errno or 0, "spice-connect -v shows what it does")


@contextmanager
def at(path: str) -> Iterator[None]:
    """Give an OSError the path that it is about: a failed write(2) does not know it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise
