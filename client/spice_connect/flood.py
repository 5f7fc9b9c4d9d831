"""Bounds on what a server may have us do: a lying one must not flood the person's screen."""

import time

from spice_connect.errors import ProtocolError


class Allowance:
    """So many at once, and one more each `seconds`."""

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst, self._seconds = burst, seconds
        self._left, self._at = float(burst), time.monotonic()

    def take(self) -> bool:
        """Use one; false if there is none."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) / self._seconds)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Bounds:
    """Those of one session, its reconnections included. An honest server stays far below: a VM that
    restarts every ten seconds takes four messages and one viewer each time.
    """

    def __init__(self) -> None:
        self._messages = Allowance(60, 2.0)
        self._viewers = Allowance(10, 10.0)

    def take_message(self, place: str) -> None:
        """Raises ProtocolError."""
        if not self._messages.take():
            raise ProtocolError(
                f"{place} sends too many messages, so the session ends",
                "tell its admin: a spicetunnel sends a few a minute",
            )

    def take_viewer(self, place: str) -> None:
        """Raises ProtocolError."""
        if not self._viewers.take():
            raise ProtocolError(
                f"{place} has the viewer started again and again, so the session ends",
                "does the VM restart all the time? if not, tell its admin",
            )
