"""A filter of a main channel: it lets pass what its rules name, and nothing that it does not know.

The messages that a viewer needs stand in two tables; between the viewer and the guest's agent, the
rules of `agent` decide. What is denied there is dropped, so that a viewer can go on. Any other byte
ends the channel.

Source: spice-protocol `spice/enums.h` (SPICE_MSG_MAIN_..., SPICE_MSGC_MAIN_...), spice-common
`spice.proto` for the bodies. Everything is little-endian.

Tokens. Each piece of an agent message costs the viewer a token, which spice-server gives back. For
a piece that is dropped the server never sees, the filter gives it back.

An agent that leaves and comes back. spice-server's count of a viewer's pieces goes on meanwhile
(`reds_reset_vdp`), and so does ours: a message whose first piece went on goes on to its end. What
begins between the agent's leaving and the viewer's AGENT_START, the server drops, and so do we.

Imported by a session's relay process, so: standard library only, and light.
"""

import struct
from collections import deque

from spicetunnel.spice import agent
from spicetunnel.spice.agent import MAX_PIECE, Rules
from spicetunnel.spice.agentstream import FromAgent, ToAgent
from spicetunnel.spice.handshake import Handshake, NotUnderstoodError

_HEADER = struct.Struct("<HI")  # SpiceMiniDataHeader: type, size of what follows
_TOKEN = struct.Struct("<I")

_AGENT_START, _AGENT_DATA_FROM_VIEWER, _AGENT_TOKEN_FROM_VIEWER = 106, 107, 108
_AGENT_CONNECTED, _AGENT_DISCONNECTED, _AGENT_DATA_FROM_VM = 107, 108, 109
_AGENT_TOKEN, _AGENT_CONNECTED_TOKENS = 110, 115

#: What a viewer may send, and the size of each. Not here, though spice-server knows them: what
#: answers a migration that reached another host (4, 5, 102, 109, 110, 111), as no viewer can get
#: there through the tunnel; and what no viewer sends (101, 112).
FROM_VIEWER = {
    1: 4,  # ACK_SYNC
    2: 0,  # ACK
    3: 12,  # PONG
    6: 12,  # DISCONNECTING
    103: 0,  # MIGRATE_CONNECT_ERROR: the VM's host waits for an answer
    104: 0,  # ATTACH_CHANNELS
    105: 2,  # MOUSE_MODE_REQUEST: who draws the pointer; moving it takes the inputs channel
    _AGENT_START: 4,
    _AGENT_TOKEN_FROM_VIEWER: 4,
}

#: What a VM may send, of any size: the common messages, and those of the main channel. Not here:
#: MIGRATE and MIGRATE_DATA (1, 2), as above, and LIST (8), which holds other messages.
FROM_VM = frozenset({3, 4, 5, 6, 7, *range(101, 119)})

_MOST_TOKENS = 2**32 - 1
_MOST_ANSWERS = 64  # refused files whose viewer has not been told yet; a viewer has 10 tokens


class MainFilter:
    """Both directions of one channel, from the VM's reply to the link on.

    Holds at most one message of each direction. All methods but `for_viewer` raise
    NotUnderstoodError, after which the channel must be closed.
    """

    __slots__ = (
        "_answers",
        "_handshake",
        "_owed",
        "_started",
        "_to_agent",
        "_to_viewer",
        "_viewer",
    )

    def __init__(self, rules: Rules) -> None:
        self._handshake = Handshake()
        self._viewer = bytearray()  # the beginning of the viewer's present message
        self._to_agent = ToAgent(rules)
        self._to_viewer = _ToViewer(rules)
        self._started = False  # the viewer has begun to talk to the present agent
        self._owed = 0  # tokens to give back
        self._answers = deque[bytes](maxlen=_MOST_ANSWERS)  # agent messages for the viewer

    def from_viewer(self, data: memoryview) -> bytes:
        """What of these bytes goes on to the VM."""
        taken = self._handshake.from_viewer(data)
        out = bytearray(data[:taken])
        self._viewer += data[taken:]
        at = 0
        while len(self._viewer) - at >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._viewer, at)
            _require_known(kind, size)
            end = at + _HEADER.size + size
            if len(self._viewer) < end:
                break
            out += self._message_from_viewer(kind, self._viewer[at:end])
            at = end
        del self._viewer[:at]
        return bytes(out)

    def from_vm(self, data: memoryview) -> bytes:
        """What of these bytes goes on to the viewer, with what the filter adds."""
        taken = self._handshake.from_vm(data)
        out = bytearray(data[:taken])
        data = data[taken:]
        while data:
            out += self.for_viewer()
            data, kind, passed = self._to_viewer.take(data)
            out += passed
            if kind in {_AGENT_CONNECTED, _AGENT_DISCONNECTED, _AGENT_CONNECTED_TOKENS}:
                # The viewer counts its tokens anew, once it has seen this.
                self._started, self._owed = False, 0
                self._answers.clear()
        return bytes(out + self.for_viewer())

    def for_viewer(self) -> bytes:
        """What the filter has to add now for the viewer; empty within a message of the VM's."""
        if not (self._owed or self._answers) or not self._to_viewer.between_messages:
            return b""
        out = b""
        if self._owed:
            out = _message(_AGENT_TOKEN, _TOKEN.pack(self._owed))
            self._owed = 0
        while self._answers and self._to_viewer.between_agent_messages:
            out += _message(_AGENT_DATA_FROM_VM, self._answers.popleft())
        return out

    def _message_from_viewer(self, kind: int, message: bytearray) -> bytes | bytearray:
        """A whole message with its header: what of it goes on."""
        if kind == _AGENT_DATA_FROM_VIEWER:
            return self._piece_from_viewer(message)
        if kind == _AGENT_START:
            self._started = True
        elif kind == _AGENT_TOKEN_FROM_VIEWER and not self._started:
            return b""  # for an agent that has left
        return message

    def _piece_from_viewer(self, message: bytearray) -> bytes:
        piece = self._to_agent.take(bytes(message[_HEADER.size :]), begin=self._started)
        if piece:
            return _message(_AGENT_DATA_FROM_VIEWER, piece)
        if self._started:
            self._owed = min(self._owed + 1, _MOST_TOKENS)
            if self._to_agent.refused_file is not None:
                self._answers.append(agent.cancelled(self._to_agent.refused_file))
        return b""


class _ToViewer:
    """The VM's messages, and the agent messages in them, which are put together from any pieces."""

    __slots__ = ("_agent", "_begun", "_body_left")

    def __init__(self, rules: Rules) -> None:
        self._agent = FromAgent(rules)
        self._begun = bytearray()  # a header, or a piece of the agent's, that is not whole yet
        self._body_left = 0  # bytes of a message that goes on as it is

    @property
    def between_messages(self) -> bool:
        return not self._begun and not self._body_left

    @property
    def between_agent_messages(self) -> bool:
        return self._agent.between_messages

    def take(self, data: memoryview) -> tuple[memoryview, int, bytes | memoryview]:
        """Take a part: the rest, the type if the part was a whole header, and what goes on."""
        if self._body_left:
            part = data[: self._body_left]
            self._body_left -= len(part)
            return data[len(part) :], 0, part
        begun = self._begun
        missing = _HEADER.size - len(begun)
        if missing <= 0:
            missing = _HEADER.size + _HEADER.unpack_from(begun)[1] - len(begun)
        begun += data[:missing]
        data = data[missing:]
        if len(begun) < _HEADER.size:
            return data, 0, b""
        kind, size = _HEADER.unpack_from(begun)
        if kind == _AGENT_DATA_FROM_VM:
            return data, 0, self._piece(size)
        if kind not in FROM_VM:
            raise NotUnderstoodError(f"a message of type {kind} from the VM")
        if kind in {_AGENT_CONNECTED, _AGENT_DISCONNECTED, _AGENT_CONNECTED_TOKENS}:
            self._agent.reset()
        self._body_left = size
        header = bytes(begun)
        begun.clear()
        return data, kind, header

    def _piece(self, size: int) -> bytes:
        if not 0 < size <= MAX_PIECE:
            raise NotUnderstoodError(f"a piece of {size} bytes from the agent")
        if len(self._begun) < _HEADER.size + size:
            return b""
        passed = self._agent.take(memoryview(bytes(self._begun))[_HEADER.size :])
        self._begun.clear()
        pieces = (passed[at : at + MAX_PIECE] for at in range(0, len(passed), MAX_PIECE))
        return b"".join(_message(_AGENT_DATA_FROM_VM, piece) for piece in pieces)


def _require_known(kind: int, size: int) -> None:
    """Raises NotUnderstoodError for a header that no viewer sends: its body is not waited for."""
    if kind == _AGENT_DATA_FROM_VIEWER:
        if not 0 < size <= MAX_PIECE:
            raise NotUnderstoodError(f"a piece of {size} bytes from the viewer")
    elif FROM_VIEWER.get(kind) != size:
        raise NotUnderstoodError(f"a message of type {kind} and {size} bytes from the viewer")


def _message(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body)) + body
