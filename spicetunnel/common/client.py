"""A client of the broker's control.sock (docs/protocol.md, section 2): send, and receive answers.

The gate and the admin's command use it. The gate imports it, so: standard library only, and light.
"""

import socket
import struct

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError, SpicetunnelError, os_reason
from spicetunnel.common.protocol import (
    CONTROL_SOCKET,
    Message,
    decode,
    encode,
    flag,
    number,
    text,
)


class NoBrokerError(SpicetunnelError):
    """No broker listens, or it went away before it had answered."""


def connect(run_dir: str, *, timeout: float | None = None) -> socket.socket:
    """A connection to the broker. `timeout`, in seconds, bounds each later call; 0: none blocks.

    Raises NoBrokerError: nobody listens, or the broker's backlog stays full for so long.
    """
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if timeout == 0:
            broker.setblocking(False)
        elif timeout:  # with Python's own timeout, a full backlog would fail at once
            broker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))
        broker.connect(f"{run_dir}/{CONTROL_SOCKET}")
        broker.settimeout(timeout)
    except OSError as error:
        broker.close()
        raise NoBrokerError(
            f"the server's broker does not answer at {run_dir} ({os_reason(error)})",
            "tell the admin of this server that spicetunneld is not running",
        ) from None
    return broker


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def send(broker: socket.socket, message: Message) -> None:
    """Raises NoBrokerError, and ProtocolError for a message that is too long."""
    try:
        fdpass.send(broker, encode(message))
    except OSError:
        raise _gone() from None


def receive(broker: socket.socket) -> Message:
    """The broker's next message, which brings no descriptor.

    Raises SpicetunnelError for a refusal, with the broker's exit code; NoBrokerError, after the
    timeout too; ProtocolError.
    """
    try:
        packet, _ = fdpass.receive(broker)
    except OSError:
        raise _gone() from None
    if not packet:
        raise _gone()
    message = decode(packet)
    if text(message, "event") == "refused":
        raise _refusal(message)
    return message


def receive_rows(broker: socket.socket, key: str) -> list[Message]:
    """The rows of an answer that comes in parts: those under `key`. Raises as `receive` does."""
    rows: list[Message] = []
    more = True
    while more:
        part = receive(broker)
        found = part.get(key)
        if not isinstance(found, list):
            raise ProtocolError(f"the broker's answer has no '{key}'")
        rows += found
        more = flag(part, "more")
    return rows


def _refusal(message: Message) -> SpicetunnelError:
    refusal = SpicetunnelError(text(message, "reason"), text(message, "hint", ""))
    refusal.exit_code = number(message, "code")
    return refusal


def _gone() -> NoBrokerError:
    return NoBrokerError("the server's broker went away", "try again")
