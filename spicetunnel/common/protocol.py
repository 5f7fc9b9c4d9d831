"""One packet of control.sock is one JSON object: docs/protocol.md, section 2.

Imported by the gate, so: standard library only, and light.
"""

import json

from spicetunnel.common.errors import ProtocolError

VERSION = 1
MAX_PACKET = 64 * 1024
MAX_NUMBER = 2**63 - 1
MAX_REASON = 200  # characters of an admin's words to somebody
RUN_DIR = "/run/spicetunnel"
CONTROL_SOCKET = "control.sock"
TUNNEL_SOCKET = "tunnel.sock"
RELAY_DIR = "/run/spicetunnel-relay"
RELAY_SOCKET = "relay.sock"
SESSIONS = "sessions"  # below RELAY_DIR: a socket for each session's process

Message = dict[str, object]


def encode(message: Message) -> bytes:
    """The packet for `message`. ASCII, so that no control character survives unescaped."""
    packet = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(packet) > MAX_PACKET:
        raise ProtocolError(f"a packet of {len(packet)} bytes is over {MAX_PACKET}")
    return packet


def decode(packet: bytes) -> Message:
    """The message in `packet`; ProtocolError for anything that is not one JSON object."""
    try:
        message = json.loads(packet.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ProtocolError("a packet is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("a packet is not a JSON object")
    return message


def text(message: Message, key: str, default: str | None = None) -> str:
    """The string under `key`; ProtocolError if absent (without a default) or of another type."""
    value = message.get(key, default)
    if not isinstance(value, str):
        raise ProtocolError(f"'{key}' is not a string")
    return value


def number(message: Message, key: str) -> int:
    """The non-negative integer under `key`. A bool is none, though Python says so."""
    return natural(message.get(key), key)


def natural(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
        raise ProtocolError(f"'{key}' is not a whole number")
    return value


def flag(message: Message, key: str) -> bool:
    value = message.get(key, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"'{key}' is not true or false")
    return value
