"""Agent messages in their pieces, and what of them goes on by the rules.

A viewer's pieces have the form that spice-server demands of them (`agent-msg-filter.c`): the header
of a message is whole in its first piece, and no piece holds more than one message. It counts them,
and treats what follows a message as the next one: who counts differently can be made to take the
middle of a message for the beginning of another.

Imported by a session's relay process, so: standard library only, and light.
"""

from spicetunnel.spice import agent
from spicetunnel.spice.handshake import NotUnderstoodError


class ToAgent:
    """From the viewer. Raises NotUnderstoodError."""

    __slots__ = ("_left", "_passes", "_rules", "refused_file")

    def __init__(self, rules: agent.Rules) -> None:
        self._rules = rules
        self._left = 0  # bytes of the present message that have not come yet
        self._passes = False
        self.refused_file: int | None = None  # the transfer that the last piece wanted to begin

    def take(self, piece: bytes, *, begin: bool) -> bytes:
        """The piece as it goes on, or nothing. `begin`: whether a new message may."""
        self.refused_file = None
        if self._left:
            self._count(len(piece))
            return piece if self._passes else b""
        kind, size = _agent_header(piece)
        body = piece[agent.HEADER.size :]
        self._left = size
        self._passes = begin and kind in self._rules.from_viewer
        self._count(len(body))
        if self._passes:
            return self._first(kind, piece, body)
        if kind == agent.FILE_XFER_START:
            self.refused_file = agent.transfer_id(body)
        return b""

    def _first(self, kind: int, piece: bytes, body: bytes) -> bytes:
        if self._left and kind not in agent.IN_PIECES:
            raise NotUnderstoodError(f"an agent message of type {kind} in several pieces")
        if kind == agent.ANNOUNCE_CAPABILITIES:
            return piece[: agent.HEADER.size] + self._rules.for_agent(body)
        return piece

    def _count(self, size: int) -> None:
        if size > self._left:
            raise NotUnderstoodError("a piece of the viewer's is longer than its agent message")
        self._left -= size


class FromAgent:
    """From the agent, as a stream: its pieces may have any form. Raises NotUnderstoodError."""

    __slots__ = ("_announcement", "_begun", "_left", "_passes", "_rules")

    def __init__(self, rules: agent.Rules) -> None:
        self._rules = rules
        self.reset()

    def reset(self) -> None:
        """Another agent begins anew; so does the viewer's count (spice-gtk, reset_agent)."""
        self._begun = bytearray()  # the header of the present message
        self._left = 0  # bytes of its body that have not come yet
        self._passes = False
        self._announcement: bytearray | None = None  # the body, where it has to be changed

    @property
    def between_messages(self) -> bool:
        return not self._begun

    def take(self, data: memoryview) -> bytes:
        """What of these bytes goes on to the viewer."""
        out = bytearray()
        while data:
            missing = agent.HEADER.size - len(self._begun)
            if missing:
                self._begun += data[:missing]
                data = data[missing:]
                if len(self._begun) == agent.HEADER.size:
                    self._look_at_header()
                    out += self._begun if self._passes else b""
            else:
                part = data[: self._left]
                data = data[len(part) :]
                self._left -= len(part)
                out += self._body(part)
            if len(self._begun) == agent.HEADER.size and not self._left:
                self.reset()
        return bytes(out)

    def _look_at_header(self) -> None:
        kind, self._left = _agent_header(self._begun)
        self._passes = kind in self._rules.from_vm
        if kind == agent.ANNOUNCE_CAPABILITIES:
            if self._left > agent.MAX_PIECE:
                raise NotUnderstoodError(f"{self._left} bytes of capabilities from the agent")
            self._announcement = bytearray()

    def _body(self, part: memoryview) -> bytes | memoryview:
        if self._announcement is None:
            return part if self._passes else b""
        self._announcement += part
        return b"" if self._left else self._rules.for_viewer(bytes(self._announcement))


def _agent_header(data: bytes | bytearray) -> tuple[int, int]:
    """The type and the size of the agent message that begins here."""
    if len(data) < agent.HEADER.size:
        raise NotUnderstoodError("an agent message whose header is in several pieces")
    protocol, kind, _opaque, size = agent.HEADER.unpack_from(data)
    if protocol != agent.PROTOCOL:
        raise NotUnderstoodError(f"an agent message of protocol {protocol}")
    return int(kind), int(size)
