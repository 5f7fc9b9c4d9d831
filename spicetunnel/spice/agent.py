"""Messages between a viewer and the agent in its guest: what each is for, and rules by purpose.

They travel in pieces in the main channel. Source: spice-protocol `spice/vd_agent.h`
(VDAgentMessage, VD_AGENT_CAP_...); who sends what: spice-gtk's `channel-main.c`. Everything is
little-endian.

Imported by a session's relay process, so: standard library only, and light.
"""

import struct
from collections.abc import Iterable

PROTOCOL = 1
MAX_PIECE = 2048  # VD_AGENT_MAX_DATA_SIZE: bytes of an agent message in one message of the channel
HEADER = struct.Struct("<IIQI")  # protocol, type, opaque, size of what follows

# VD_AGENT_...
MOUSE_STATE = 1
MONITORS_CONFIG = 2
REPLY = 3
CLIPBOARD = 4
DISPLAY_CONFIG = 5
ANNOUNCE_CAPABILITIES = 6
CLIPBOARD_GRAB = 7
CLIPBOARD_REQUEST = 8
CLIPBOARD_RELEASE = 9
FILE_XFER_START = 10
FILE_XFER_STATUS = 11
FILE_XFER_DATA = 12
MAX_CLIPBOARD = 14
AUDIO_VOLUME_SYNC = 15

# VD_AGENT_CAP_..., as bits of the first capability word
_CAP_MOUSE = 1 << 0
_CAP_MONITORS = 1 << 1 | 1 << 7 | 1 << 12  # plain, sparse, with positions
_CAP_REPLY = 1 << 2
# Plain, by demand, with selections, without a release before the next grab.
_CAP_CLIPBOARD = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 16
_CAP_DISPLAY = 1 << 4
_CAP_LINE_ENDS = 1 << 8 | 1 << 9
_CAP_MAX_CLIPBOARD = 1 << 10
_CAP_VOLUME = 1 << 11
_CAP_FILES_DISABLED = 1 << 13
_CAP_FILE_ERRORS = 1 << 14
# Both ends number the grabs of both. Where the grabs of one are dropped, the numbers differ, and
# spice-gtk then ignores the grabs of the other.
_CAP_GRAB_SERIAL = 1 << 17

#: Types that a viewer may send in several pieces. The others fit in one: spice-server and the
#: agent then see each of them whole or not at all, whatever a viewer does between the pieces.
IN_PIECES = frozenset({CLIPBOARD, CLIPBOARD_GRAB, FILE_XFER_START, FILE_XFER_DATA})

_CANCELLED = 1  # VD_AGENT_FILE_XFER_STATUS_CANCELLED
_STATUS = struct.Struct("<II")  # id of the transfer, result
_WORD = struct.Struct("<I")

#: Each purpose: the types that a viewer sends for it, those that the agent sends, and the
#: capabilities. What is in no line is never let through.
PURPOSES = {
    "mouse": ({MOUSE_STATE}, set[int](), _CAP_MOUSE),
    "monitors": ({MONITORS_CONFIG}, set[int](), _CAP_MONITORS),
    "display-settings": ({DISPLAY_CONFIG}, set[int](), _CAP_DISPLAY),
    "volume": ({AUDIO_VOLUME_SYNC}, set[int](), _CAP_VOLUME),
    "clipboard-to-vm": (
        {CLIPBOARD, CLIPBOARD_GRAB, CLIPBOARD_RELEASE},
        {CLIPBOARD_REQUEST},
        _CAP_CLIPBOARD,
    ),
    "clipboard-from-vm": (
        {CLIPBOARD_REQUEST, MAX_CLIPBOARD},  # the most that it wants to get
        {CLIPBOARD, CLIPBOARD_GRAB, CLIPBOARD_RELEASE},
        _CAP_CLIPBOARD | _CAP_MAX_CLIPBOARD,
    ),
    "files-to-vm": (
        {FILE_XFER_START, FILE_XFER_STATUS, FILE_XFER_DATA},
        {FILE_XFER_STATUS},
        _CAP_FILE_ERRORS,
    ),
}


class Rules:
    """What viewer and agent may exchange. Everything that is not named is denied.

    `purposes`: keys of PURPOSES. Raises ValueError for others.
    """

    __slots__ = ("_capabilities", "_capabilities_told", "from_viewer", "from_vm", "purposes")

    def __init__(self, purposes: Iterable[str]) -> None:
        self.purposes = frozenset(purposes)
        if unknown := self.purposes - PURPOSES.keys():
            raise ValueError(f"no purpose of agent messages: {', '.join(sorted(unknown))}")
        from_viewer, from_vm = {ANNOUNCE_CAPABILITIES}, {ANNOUNCE_CAPABILITIES, REPLY}
        capabilities = _CAP_REPLY | _CAP_LINE_ENDS
        for each in self.purposes:
            types_from_viewer, types_from_vm, bits = PURPOSES[each]
            from_viewer |= types_from_viewer
            from_vm |= types_from_vm
            capabilities |= bits
        if {"clipboard-to-vm", "clipboard-from-vm"} <= self.purposes:
            capabilities |= _CAP_GRAB_SERIAL
        self.from_viewer, self.from_vm = frozenset(from_viewer), frozenset(from_vm)
        self._capabilities = capabilities
        self._capabilities_told = 0 if "files-to-vm" in self.purposes else _CAP_FILES_DISABLED

    def for_agent(self, announcement: bytes) -> bytes:
        """The viewer's VDAgentAnnounceCapabilities, without those that are denied."""
        return _masked(announcement, self._capabilities, 0)

    def for_viewer(self, announcement: bytes) -> bytes:
        """The agent's, without those that are denied.

        Without `files-to-vm` it says so: a viewer then refuses a file at once.
        """
        return _masked(announcement, self._capabilities, self._capabilities_told)


def _masked(announcement: bytes, keep: int, add: int) -> bytes:
    """All words but the first are cleared: there is no capability in them yet."""
    request, words = announcement[: _WORD.size], announcement[_WORD.size :]
    if len(words) < _WORD.size:
        return request + bytes(len(words))
    first = _WORD.unpack_from(words)[0] & keep | add
    return request + _WORD.pack(first) + bytes(len(words) - _WORD.size)


def transfer_id(start: bytes) -> int | None:
    """Which file transfer begins: the id in the first bytes of FILE_XFER_START's body."""
    return int(_WORD.unpack_from(start)[0]) if len(start) >= _WORD.size else None


def cancelled(transfer: int) -> bytes:
    """The agent message with which a guest's agent refuses a file."""
    body = _STATUS.pack(transfer, _CANCELLED)
    return HEADER.pack(PROTOCOL, FILE_XFER_STATUS, 0, len(body)) + body
