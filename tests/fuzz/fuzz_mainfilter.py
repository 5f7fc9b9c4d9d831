"""Any bytes in a filtered main channel: what the VM gets is what spice-server may be given.

The fuzzer chooses rules and a row of steps, each from one side: raw bytes, a message of the main
channel, or a piece of an agent's. So it need not guess each header.
"""

import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import zip_longest

import atheris

with atheris.instrument_imports(include=["spicetunnel"]):
    from spicetunnel.spice.agent import PURPOSES, Rules
    from spicetunnel.spice.handshake import NotUnderstoodError
    from spicetunnel.spice.mainfilter import FROM_VIEWER, FROM_VM, MainFilter

from tests.stage import spice

NAMES = sorted(PURPOSES)
LINK = [("vm", spice.link_reply()), ("viewer", spice.ticket()), ("vm", spice.u32(0))]
TICKET_SIZE, LINK_SIZE = len(spice.ticket()), len(spice.link_reply()) + 4
Step = tuple[str, bytes]  # from whom, and what


def one_input(data: bytes) -> None:
    given = atheris.FuzzedDataProvider(data)
    chosen = given.ConsumeIntInRange(0, 2 ** len(NAMES) - 1)
    rules = Rules(name for bit, name in enumerate(NAMES) if chosen >> bit & 1)
    cut = given.ConsumeIntInRange(1, 40)
    link = LINK if given.ConsumeIntInRange(0, 7) else []  # or the fuzzer has to find the way
    steps = list(_steps(given))
    whole = Played(rules, link + steps)
    in_fragments = Played(rules, _fragments(link + steps, cut))
    at_once = Played(rules, link + _both_sides_at_once(steps, cut))
    assert whole.refused == in_fragments.refused
    if not whole.refused:
        assert whole.to_vm == in_fragments.to_vm
    for each in (whole, in_fragments, at_once):
        each.check()


def _fragments(steps: Iterable[Step], cut: int) -> list[Step]:
    return [(side, part[at : at + cut]) for side, part in steps for at in range(0, len(part), cut)]


def _both_sides_at_once(steps: list[Step], cut: int) -> list[Step]:
    sides = ([step for step in steps if step[0] == side] for side in ("viewer", "vm"))
    fragments = (_fragments(side, cut) for side in sides)
    return [step for pair in zip_longest(*fragments) for step in pair if step is not None]


def _steps(given: atheris.FuzzedDataProvider) -> Iterator[Step]:
    for _ in range(given.ConsumeIntInRange(0, 20)):
        side = "viewer" if given.ConsumeBool() else "vm"
        yield side, _part(given, side)


def _part(given: atheris.FuzzedDataProvider, side: str) -> bytes:
    form = given.ConsumeIntInRange(0, 5)
    body = given.ConsumeBytes(given.PickValueInList([0, 0, 1, 20, 40, 60]))
    agent_data = spice.AGENT_DATA if side == "viewer" else spice.VM_AGENT_DATA
    if form == 0:
        return bytes(body)
    if form == 1:
        kind = given.ConsumeIntInRange(0, 120)
        return spice.message(kind, body[: FROM_VIEWER.get(kind, 60)] if side == "viewer" else body)
    if form == 2:  # the agent leaves or comes; the viewer begins to talk to it
        kinds = [spice.AGENT_START] if side == "viewer" else [108, 115]
        return spice.message(given.PickValueInList(kinds), bytes(4))
    if form == 3:  # what may be the middle of an agent message
        return spice.message(agent_data, body)
    size = len(body) + given.PickValueInList([0, 0, 20, 60, 2048])
    head = struct.pack("<IIQI", 1, given.PickValueInList([*range(1, 17), 4, 6, 8, 10, 12]), 0, size)
    return spice.message(agent_data, head + body)


class Played:
    """The steps, up to what the filter refuses, and what came out."""

    def __init__(self, rules: Rules, steps: list[Step]) -> None:
        self.rules = rules
        self.to_vm, self.to_viewer, self.refused = b"", b"", ""
        filter_ = MainFilter(rules)
        try:
            for side, part in steps:
                if side == "viewer":
                    self.to_vm += filter_.from_viewer(memoryview(part))
                    self.to_viewer += filter_.for_viewer()
                else:
                    self.to_viewer += filter_.from_vm(memoryview(part))
        except NotUnderstoodError as error:
            self.refused = str(error)

    def check(self) -> None:
        assert self.refused.isprintable()
        assert self.refused.isascii()
        self._check_vm()
        self._check_viewer()

    def _check_vm(self) -> None:
        reader = spice.AgentReader()
        sent = _whole(self.to_vm[TICKET_SIZE:])
        for kind, body in sent:
            if kind == spice.AGENT_DATA:
                begun = reader.read(body)
                assert begun is None or begun.kind in self.rules.from_viewer
            else:
                assert FROM_VIEWER[kind] == len(body)

    def _check_viewer(self) -> None:
        """As spice-gtk reads it: an agent that leaves ends the message it was in."""
        agents: list[list[bytes]] = [[]]
        for kind, body in _whole(self.to_viewer[LINK_SIZE:]):
            assert kind in FROM_VM
            if kind in {107, spice.AGENT_DISCONNECTED, spice.AGENT_CONNECTED_TOKENS}:
                agents.append([])
            elif kind == spice.VM_AGENT_DATA:
                assert len(body) <= spice.PIECE
                agents[-1].append(body)
        for pieces in agents:
            for kind in _kinds(b"".join(pieces)):
                assert kind in self.rules.from_vm | {spice.FILE_STATUS}


def _whole(data: bytes) -> Iterator[spice.Message]:
    """The messages, without a last one that is not whole."""
    while len(data) >= 6 and len(data) >= 6 + (size := int.from_bytes(data[2:6], "little")):
        yield spice.Message(int.from_bytes(data[:2], "little"), data[6 : 6 + size])
        data = data[6 + size :]


def _kinds(data: bytes) -> Iterator[int]:
    while len(data) >= 20:
        protocol, kind, _, size = struct.unpack_from("<IIQI", data)
        assert protocol == 1
        yield kind
        data = data[20 + size :]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
