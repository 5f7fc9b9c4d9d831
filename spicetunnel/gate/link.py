"""The gate's connection to the broker, and to the broker's successor after it."""

import socket
import time

from spicetunnel.common import fdpass
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import CONTROL_SOCKET, Message, encode


def connect(run_dir: str) -> socket.socket:
    """A connection to the broker. Raises SpicetunnelError where none listens."""
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        broker.connect(f"{run_dir}/{CONTROL_SOCKET}")
    except OSError as error:
        broker.close()
        raise SpicetunnelError(
            f"the server's broker does not answer ({error.strerror})",
            "tell the admin of this server that spicetunneld is not running",
        ) from None
    return broker


class BrokerLink:
    """Says and hears; knows since when nobody has been there."""

    def __init__(self, broker: socket.socket, run_dir: str) -> None:
        self.socket = broker
        self.socket.setblocking(False)
        self.lost_at: float | None = None  # on the monotonic clock
        self._run_dir = run_dir

    @property
    def is_up(self) -> bool:
        return self.lost_at is None

    def away(self) -> float:
        """Seconds without a broker."""
        return 0.0 if self.lost_at is None else time.monotonic() - self.lost_at

    def lose(self) -> None:
        self.socket.close()
        self.lost_at = time.monotonic()

    def find_again(self) -> bool:
        """Whether there is a broker now, and we are connected to it."""
        try:
            self.socket = connect(self._run_dir)
        except SpicetunnelError:
            return False
        self.socket.setblocking(False)
        self.lost_at = None
        return True

    def tell(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """Whether the broker has it: not one that is away, nor one that does not read."""
        if not self.is_up:
            return False
        try:
            fdpass.send(self.socket, encode(message), fds)
        except OSError:
            return False  # a report lost is better than a session; the broker's end shows as EOF
        return True
