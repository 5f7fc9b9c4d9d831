"""What follows the link message, until the messages of a channel begin.

Source: spice-protocol `spice/protocol.h` (SpiceLinkHeader, SpiceLinkReply,
SpiceLinkAuthMechanism, SpiceLinkEncryptedTicket); the order is spice-server's, `reds.cpp`
(reds_send_link_ack, reds_handle_auth_mechanism, reds_handle_ticket). Everything is little-endian.

Imported by a session's relay process, so: standard library only, and light.
"""

import struct

MAGIC = b"REDQ"
MAJOR_VERSION = 2
HEADER = struct.Struct("<4sIII")  # magic, major and minor version, size of what follows
PUBLIC_KEY_SIZE = 162  # SPICE_TICKET_PUBKEY_BYTES
#: SpiceLinkReply: error, key, numbers of common and of channel capability words, their offset.
REPLY = struct.Struct(f"<I{PUBLIC_KEY_SIZE}sIII")
MAX_SIZE = 4096  # spice-server's limit of a link message; its replies have 182 or 186 bytes

# Bits of the common capability words.
AUTH_SELECTION = 1 << 0
MINI_HEADER = 1 << 3
#: Both ends must have these where a channel is read: then the ticket is 4 + 128 bytes, and each
#: message has a header of 6 bytes. Every viewer since 2011 and every QEMU has them.
NEEDED = AUTH_SELECTION | MINI_HEADER

_WORD = struct.Struct("<I")
_AUTH_SPICE = 1  # a ticket. The other mechanism, SASL, would be a conversation of its own
_TICKET_SIZE = 128  # an RSA block of 1024 bits


class NotUnderstoodError(Exception):
    """Bytes that are not SPICE, or not in a way that can be filtered. The reason is one line."""


class Handshake:
    """Follows the two sides: the VM's reply, the viewer's ticket, the VM's result.

    All these bytes go on as they are.
    """

    __slots__ = ("_from_viewer", "_reply", "_result", "_stage")

    _REPLY, _TICKET, _RESULT, _REFUSED, _DONE = range(5)

    def __init__(self) -> None:
        self._stage = self._REPLY
        self._reply = bytearray()
        self._from_viewer = bytearray()
        self._result = bytearray()

    @property
    def done(self) -> bool:
        """Whether messages follow, from both sides."""
        return self._stage == self._DONE

    def from_vm(self, data: memoryview) -> int:
        """How many of the bytes belong here; messages follow them. Raises NotUnderstoodError."""
        taken = 0
        while taken < len(data) and not self.done:
            if self._stage == self._REPLY:
                taken += _fill(self._reply, self._reply_size(), data[taken:])
                self._look_at_reply()
            elif self._stage == self._RESULT:
                taken += _fill(self._result, _WORD.size, data[taken:])
                if len(self._result) == _WORD.size:
                    self._stage = self._REFUSED if any(self._result) else self._DONE
            else:
                raise NotUnderstoodError("the VM sent bytes out of turn at the link")
        return taken

    def from_viewer(self, data: memoryview) -> int:
        """How many of the bytes belong here; messages follow them. Raises NotUnderstoodError."""
        if not len(data) or self.done:
            return 0
        if self._stage != self._TICKET:
            raise NotUnderstoodError("the viewer sent bytes out of turn at the link")
        taken = _fill(self._from_viewer, _WORD.size + _TICKET_SIZE, data)
        if len(self._from_viewer) >= _WORD.size:
            (mechanism,) = _WORD.unpack_from(self._from_viewer)
            if mechanism != _AUTH_SPICE:
                raise NotUnderstoodError("the viewer authenticates by something else than a ticket")
        if len(self._from_viewer) == _WORD.size + _TICKET_SIZE:
            self._stage = self._RESULT
            self._from_viewer.clear()  # it holds the VM's password
        if taken < len(data):
            raise NotUnderstoodError("the viewer sent bytes out of turn at the link")
        return taken

    def _reply_size(self) -> int:
        """The size of the VM's reply with its header; only the header's until that is there."""
        if len(self._reply) < HEADER.size:
            return HEADER.size
        magic, major, _minor, size = HEADER.unpack_from(self._reply)
        if magic != MAGIC or major != MAJOR_VERSION or not REPLY.size <= size <= MAX_SIZE:
            raise NotUnderstoodError("the VM's reply to the link is not SPICE")
        return HEADER.size + int(size)

    def _look_at_reply(self) -> None:
        if len(self._reply) < self._reply_size() or len(self._reply) <= HEADER.size:
            return
        body = memoryview(self._reply)[HEADER.size :]
        error, _key, common, channel, offset = REPLY.unpack_from(body)
        if error:
            self._stage = self._REFUSED
            return
        if offset < REPLY.size or offset + 4 * (common + channel) > len(body):
            raise NotUnderstoodError("the VM's reply to the link is not SPICE")
        capabilities = _WORD.unpack_from(body, offset)[0] if common else 0
        if capabilities & NEEDED != NEEDED:
            raise NotUnderstoodError("the VM does not speak SPICE with short headers")
        self._stage = self._TICKET


def _fill(buffer: bytearray, size: int, data: memoryview) -> int:
    """Add what is missing to `size` bytes; how many were added."""
    part = data[: size - len(buffer)]
    buffer += part
    return len(part)
