"""Every way to fail, each with one plain line for the person and the exit code it carries.

Exit codes are those of sysexits(3); `os.EX_*` holds the numbers.
"""

import os


class ClientError(Exception):
    """`reason` is one line, lower case, no full stop; `hint` says what to do, or is empty."""

    exit_code = os.EX_SOFTWARE
    announced = False  # on the desktop

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class UsageError(ClientError):
    """The command line asks for something that does not exist."""

    exit_code = os.EX_USAGE


class ConfigError(ClientError):
    """A configuration file says something we do not understand."""

    exit_code = os.EX_CONFIG


class UnavailableError(ClientError):
    """The host, the viewer or something else we need cannot be had."""

    exit_code = os.EX_UNAVAILABLE


class LostError(UnavailableError):
    """The connection to the host is gone or cannot be had now; trying again may help."""


class ProtocolError(ClientError):
    """What answered does not speak docs/protocol.md."""

    exit_code = os.EX_PROTOCOL


class ServerError(ClientError):
    """The server's own refusal or end, with the server's own exit code."""

    def __init__(self, reason: str, hint: str, exit_code: int) -> None:
        super().__init__(reason, hint)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal asked us to end, at any point of the program; like KeyboardInterrupt, no error."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum
