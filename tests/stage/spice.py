"""SPICE's bytes, as viewer, server and agent write them, and the server's way of reading them.

Sources: docs/protocol.md, 3, for the link message; spicetunnel/spice names those of the others.
Nothing here is the product's code: a test compares the two.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

MAIN, DISPLAY, INPUTS, PORT = 1, 2, 3, 10

# Messages of the main channel. The numbers differ by direction.
INIT, CHANNELS_LIST = 103, 104
ATTACH_CHANNELS, MOUSE_MODE_REQUEST, AGENT_START, AGENT_DATA = 104, 105, 106, 107
AGENT_DISCONNECTED, VM_AGENT_DATA, VM_TOKENS, AGENT_CONNECTED_TOKENS = 108, 109, 110, 115

# Types of the agent's messages.
MOUSE, MONITORS, AGENT_REPLY, CLIPBOARD, DISPLAY_CONFIG, CAPABILITIES = range(1, 7)
GRAB, REQUEST, RELEASE, FILE_START, FILE_STATUS, FILE_DATA = range(7, 13)
MAX_CLIPBOARD, VOLUME = 14, 15

PIECE = 2048


def link(
    kind: int = MAIN, connection_id: int = 0, number: int = 0, capabilities: int = 0b1011
) -> bytes:
    # One word of common capabilities: AuthSelection, AuthSpice, MiniHeader.
    body = struct.pack("<IBBIIII", connection_id, kind, number, 1, 0, 18, capabilities)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body


def link_reply(error: int = 0, capabilities: int = 0b1011, key: bytes = bytes(162)) -> bytes:
    """As QEMU's: one word of common capabilities, one of the channel's."""
    body = struct.pack("<I162sIIIII", error, key, 1, 1, 178, capabilities, 9)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body


def ticket(encrypted: bytes = bytes(128)) -> bytes:
    return struct.pack("<I", 1) + encrypted


def exactly(end: socket.socket, size: int) -> bytes:
    """So many bytes; fewer if it is closed before."""
    data = b""
    while len(data) < size and (part := end.recv(size - len(data))):
        data += part
    return data


def pass_the_link(viewer: socket.socket, server: socket.socket) -> None:
    """Have both ends of a main channel say, after the link message, what they begin with."""
    for here, there, part in (
        (server, viewer, link_reply()),
        (viewer, server, ticket()),
        (server, viewer, u32(0) + message(INIT, bytes(32))),
        (viewer, server, message(AGENT_START, u32(1))),
    ):
        here.sendall(part)
        assert exactly(there, len(part)) == part


def message(kind: int, body: bytes = b"") -> bytes:
    """With the header of 6 bytes."""
    return struct.pack("<HI", kind, len(body)) + body


def u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def agent_message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQI", 1, kind, 0, len(body)) + body


def pieces(kind: int, body: bytes = b"", channel_kind: int = AGENT_DATA) -> list[bytes]:
    """An agent message as messages of the main channel, by default the viewer's."""
    whole = agent_message(kind, body)
    parts = (whole[at : at + PIECE] for at in range(0, len(whole), PIECE))
    return [message(channel_kind, part) for part in parts]


def announcement(*numbers: int, request: int = 1) -> bytes:
    """The body of CAPABILITIES with these."""
    return u32(request, sum(1 << number for number in numbers))


def announced(body: bytes) -> set[int]:
    """The capabilities in such a body."""
    bits = int.from_bytes(body[4:], "little")
    return {number for number in range(bits.bit_length()) if bits >> number & 1}


class Message(NamedTuple):
    kind: int
    body: bytes


def messages(data: bytes) -> list[Message]:
    """The messages of a main channel. Fails unless the last one is whole."""
    found = []
    while data:
        kind, size = struct.unpack_from("<HI", data)
        assert len(data) >= 6 + size, "the last message is not whole"
        found.append(Message(kind, data[6 : 6 + size]))
        data = data[6 + size :]
    return found


class AgentReader:
    """The viewer's agent messages as spice-server reads them (agent-msg-filter.c)."""

    def __init__(self) -> None:
        self._left = 0

    def read(self, piece: bytes) -> Message | None:
        """The message that begins with this piece, as far as it is here; None within one.

        Fails for a piece that makes the server drop the client.
        """
        assert 0 < len(piece) <= PIECE
        begun, part = None, piece
        if not self._left:
            assert len(piece) >= 20
            protocol, kind, _, self._left = struct.unpack_from("<IIQI", piece)
            assert protocol == 1
            part = piece[20:]
            begun = Message(kind, part)
        assert len(part) <= self._left
        self._left -= len(part)
        return begun


def agent_messages(pieces: list[bytes], *, so_far: bool = False) -> Iterator[Message]:
    """What the agent sent, put together as spice-gtk does it.

    Unless this is only `so_far`: fails if the last one is not whole.
    """
    data = b"".join(pieces)
    while data:
        if so_far and (len(data) < 20 or len(data) < 20 + int.from_bytes(data[16:20], "little")):
            return
        protocol, kind, _, size = struct.unpack_from("<IIQI", data)
        assert protocol == 1
        assert len(data) >= 20 + size, "the last agent message is not whole"
        yield Message(kind, data[20 : 20 + size])
        data = data[20 + size :]
