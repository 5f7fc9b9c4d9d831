"""The SPICE link message: the first bytes of every SPICE channel.

Source: spice-protocol `spice/protocol.h` (SpiceLinkHeader, SpiceLinkMess, SpiceLinkReply) and
`spice/error_codes.h`; the 4096-byte limit is spice-server's, `reds_handle_read_header_done`.
"""

import struct
from dataclasses import dataclass

from spicetunnel.spice.handshake import (
    HEADER,
    MAGIC,
    MAJOR_VERSION,
    MAX_SIZE,
    NEEDED,
    PUBLIC_KEY_SIZE,
    REPLY,
)

MINOR_VERSION = 2
_MESSAGE = struct.Struct("<IBBIII")
_WORD = struct.Struct("<I")
HEADER_SIZE = HEADER.size

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


class LinkError(Exception):
    """The link message is refused; `code` is the SpiceLinkErr to answer with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True)
class Link:
    """What a channel announces. `connection_id` is 0 for the main channel.

    `can_be_read`: whether the viewer speaks SPICE in the form that `handshake` understands.
    """

    connection_id: int
    channel_type: int
    channel_id: int
    can_be_read: bool = False

    @property
    def is_main(self) -> bool:
        return self.channel_type == MAIN

    @property
    def type_name(self) -> str:
        return CHANNEL_TYPES.get(self.channel_type, f"type-{self.channel_type}")


def message_size(header: bytes) -> int:
    """The size of the message after the 16 bytes of `header`. Raises LinkError."""
    magic, major, _minor, size = HEADER.unpack(header)
    if magic != MAGIC:
        raise LinkError("not a SPICE connection: wrong magic", INVALID_MAGIC)
    if major != MAJOR_VERSION:
        raise LinkError(f"SPICE protocol {major} is not {MAJOR_VERSION}", VERSION_MISMATCH)
    if not _MESSAGE.size <= size <= MAX_SIZE:
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
    capabilities = _WORD.unpack_from(message, offset)[0] if common else 0
    return Link(connection_id, kind, number, capabilities & NEEDED == NEEDED)


def refusal(code: int) -> bytes:
    """The SpiceLinkReply that refuses a channel with the SpiceLinkErr `code`."""
    reply = REPLY.pack(code, bytes(PUBLIC_KEY_SIZE), 0, 0, REPLY.size)
    return HEADER.pack(MAGIC, MAJOR_VERSION, MINOR_VERSION, len(reply)) + reply
