"""The failures, each with one line for the user and its exit code.

The exit codes are those of sysexits(3), which Python has as `os.EX_*`.
"""

import os


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
