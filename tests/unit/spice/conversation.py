"""A filter with its two ends, past the link."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from spicetunnel.spice.agent import PURPOSES, Rules
from spicetunnel.spice.mainfilter import MainFilter
from tests.stage.spice import (
    AGENT_DATA,
    AGENT_START,
    INIT,
    VM_AGENT_DATA,
    VM_TOKENS,
    AgentReader,
    Message,
    agent_messages,
    link_reply,
    message,
    messages,
    ticket,
    u32,
)

VIEW_ONLY = frozenset({"clipboard-from-vm"})
EVERYTHING = frozenset(PURPOSES)
INIT_MESSAGE = message(INIT, u32(7, 1, 3, 1, 1, 10, 0, 0))


class Conversation:
    """Everything that went through, by direction, without the link's bytes."""

    def __init__(self, purposes: Iterable[str] = VIEW_ONLY, *, started: bool = True) -> None:
        self.filter = MainFilter(Rules(purposes))
        self.to_vm = self.to_viewer = b""
        self.vm(link_reply())
        self.viewer(ticket())
        self.vm(u32(0))
        self.to_vm = self.to_viewer = b""
        if started:
            self.vm(INIT_MESSAGE)
            self.viewer(message(AGENT_START, u32(2**32 - 1)))
            self.to_vm = self.to_viewer = b""

    def viewer(self, *parts: bytes) -> None:
        for part in parts:
            self.to_vm += self.filter.from_viewer(memoryview(part))
            self.to_viewer += self.filter.for_viewer()

    def vm(self, *parts: bytes) -> None:
        for part in parts:
            self.to_viewer += self.filter.from_vm(memoryview(part))

    def agent_heard(self) -> list[Message]:
        """The agent messages that began at the VM, as the server reads them."""
        reader = AgentReader()
        pieces = [each.body for each in messages(self.to_vm) if each.kind == AGENT_DATA]
        return [begun for piece in pieces if (begun := reader.read(piece)) is not None]

    def viewer_heard(self) -> list[Message]:
        """The agent messages that reached the viewer."""
        said = [each.body for each in messages(self.to_viewer) if each.kind == VM_AGENT_DATA]
        return list(agent_messages(said))

    def refunded(self) -> int:
        said = [each.body for each in messages(self.to_viewer) if each.kind == VM_TOKENS]
        return sum(int.from_bytes(each, "little") for each in said)


def cut_at(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in fragments that begin at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[one:other] for one, other in pairwise(edges) if one < other]
