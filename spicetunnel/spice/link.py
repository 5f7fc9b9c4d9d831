"""The SPICE link message: the first bytes of every SPICE channel.

Source: spice-protocol `spice/protocol.h` (SpiceLinkHeader, SpiceLinkMess, SpiceLinkReply) and
`spice/error_codes.h`; the 4096-byte limit is spice-server's, `reds_handle_read_header_done`.
"""

import struct
from dataclasses import dataclass

MAGIC = b"REDQ"
MAJOR_VERSION = 2
MINOR_VERSION = 2
_HEADER = struct.Struct("<4sIII")
_MESSAGE = struct.Struct("<IBBIII")
HEADER_SIZE = _HEADER.size
MAX_MESSAGE_SIZE = 4096

CHANNEL_TYPES = {
    1: "main",
    2: "display",
    3: "inputs",
    4: "cursor",
    5: "playback",
    6: "record",
    7: "tunnel",
    8: "smartcard",
    9: "usbredir",
    10: "port",
    11: "webdav",
}
MAIN = 1

# SpiceLinkErr
ERROR = 1
INVALID_MAGIC = 2
INVALID_DATA = 3
VERSION_MISMATCH = 4
NEED_SECURED = 5
PERMISSION_DENIED = 7
CHANNEL_NOT_AVAILABLE = 9

_PUBLIC_KEY_SIZE = 162  # SPICE_TICKET_PUBKEY_BYTES
_REPLY = struct.Struct(f"<I{_PUBLIC_KEY_SIZE}sIII")


class LinkError(Exception):
    """The link message is refused; `code` is the SpiceLinkErr to answer with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True)
class Link:
    """What a channel announces. `connection_id` is 0 for the main channel."""

    connection_id: int
    channel_type: int
    channel_id: int

    @property
    def is_main(self) -> bool:
        return self.channel_type == MAIN

    @property
    def type_name(self) -> str:
        return CHANNEL_TYPES.get(self.channel_type, f"type-{self.channel_type}")


def message_size(header: bytes) -> int:
    """The size of the message after the 16 bytes of `header`. Raises LinkError."""
    magic, major, _minor, size = _HEADER.unpack(header)
    if magic != MAGIC:
        raise LinkError("not a SPICE connection: wrong magic", INVALID_MAGIC)
    if major != MAJOR_VERSION:
        raise LinkError(f"SPICE protocol {major} is not {MAJOR_VERSION}", VERSION_MISMATCH)
    if not _MESSAGE.size <= size <= MAX_MESSAGE_SIZE:
        raise LinkError(f"a link message of {size} bytes", INVALID_DATA)
    return int(size)


def parse_message(message: bytes) -> Link:
    """The link in the bytes after the header. Raises LinkError."""
    connection_id, kind, number, common, channel, offset = _MESSAGE.unpack_from(message)
    if offset < _MESSAGE.size or offset + 4 * (common + channel) > len(message):
        raise LinkError("capabilities lie outside the link message", INVALID_DATA)
    if kind == MAIN and connection_id != 0:
        # spice-server would take this for the target of a migration.
        raise LinkError("a main channel with a connection id", PERMISSION_DENIED)
    return Link(connection_id, kind, number)


def refusal(code: int) -> bytes:
    """The SpiceLinkReply that refuses a channel with the SpiceLinkErr `code`."""
    reply = _REPLY.pack(code, bytes(_PUBLIC_KEY_SIZE), 0, 0, _REPLY.size)
    return _HEADER.pack(MAGIC, MAJOR_VERSION, MINOR_VERSION, len(reply)) + reply
