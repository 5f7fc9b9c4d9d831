"""Every refusal and failure that a person can see, with its exit code.

Exit codes are those of sysexits(3); `os.EX_*` holds the numbers.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType


class SpicetunnelError(Exception):
    """A failure, with one line for the person, and a hint what to do next if there is one.

    `reason` is lower case, one line, without a full stop; `hint` likewise or empty. `times`: the
    moments in both, the words with the instant in ISO 8601.
    """

    exit_code = os.EX_SOFTWARE

    def __init__(
        self, reason: str, hint: str = "", times: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.times = times


class UsageError(SpicetunnelError):
    """The request is malformed, or does not fit the state of this connection."""

    exit_code = os.EX_USAGE


class NotRunningError(SpicetunnelError):
    """The VM's SPICE socket is absent or nobody listens on it."""

    exit_code = os.EX_UNAVAILABLE


class BusyError(SpicetunnelError):
    """The VM's seat, or a limit, is taken."""

    exit_code = os.EX_TEMPFAIL


class NotPermittedError(SpicetunnelError):
    """The map gives this person no right to what they asked for."""

    exit_code = os.EX_NOPERM


class ProtocolError(SpicetunnelError):
    """The other end of a socket broke docs/protocol.md; it is dropped."""

    exit_code = os.EX_SOFTWARE


def os_reason(error: OSError) -> str:
    """What went wrong, in the system's words: `no such file or directory`. Lower case, one line."""
    return (error.strerror or str(error) or "unknown error").lower()
