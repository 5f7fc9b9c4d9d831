"""The gate's connection to the broker, and to the broker's successor after it."""

import socket
import time

from spicetunnel.common import fdpass
from spicetunnel.common.client import connect
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import Message, encode


class BrokerLink:
    """Says and hears; knows since when no broker has known the session.

    A connection alone says nothing: the service manager listens for a broker that may never come.
    """

    def __init__(self, broker: socket.socket, run_dir: str) -> None:
        self.socket = broker
        self.socket.setblocking(False)
        self.is_connected = True
        self._lost_at: float | None = None  # on the monotonic clock
        self._run_dir = run_dir

    @property
    def is_known(self) -> bool:
        return self._lost_at is None

    def away(self) -> float:
        """Seconds without a broker that knows the session."""
        return 0.0 if self._lost_at is None else time.monotonic() - self._lost_at

    def lose(self) -> None:
        self.socket.close()
        self.is_connected = False
        self._lost_at = self._lost_at or time.monotonic()

    def find_again(self) -> bool:
        """Whether we are connected anew."""
        try:
            self.socket = connect(self._run_dir, timeout=0)
        except SpicetunnelError:
            return False
        self.is_connected = True
        return True

    def confirm(self) -> None:
        """The new broker knows the session."""
        self._lost_at = None

    def tell(self, message: Message) -> None:
        """A broker that is away, or does not read, does not hear it: its end shows as EOF."""
        if not self.is_connected:
            return
        try:
            fdpass.send(self.socket, encode(message))
        except OSError:
            pass
