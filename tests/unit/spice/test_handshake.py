"""The link of a filtered channel: every byte of it in its turn, in fragments of any size."""

import pytest

from spicetunnel.spice.agent import Rules
from spicetunnel.spice.handshake import NotUnderstoodError
from spicetunnel.spice.mainfilter import MainFilter
from tests.stage.spice import ATTACH_CHANNELS, CHANNELS_LIST, link_reply, message, ticket, u32

RESULT = u32(0)


def linked(size: int = 10_000) -> MainFilter:
    """A filter past the link, which came in fragments of `size` bytes and went on as it was."""
    found = MainFilter(Rules(()))
    for part, way in (
        (link_reply(), found.from_vm),
        (ticket(b"\x07" * 128), found.from_viewer),
        (RESULT, found.from_vm),
    ):
        sent = b"".join(way(memoryview(part[at : at + size])) for at in range(0, len(part), size))
        assert sent == part
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 15, 16, 17, 100, 10_000])
def test_link_goes_on_as_it_is_and_then_messages_do(size: int) -> None:
    found = linked(size)
    attach, channels = message(ATTACH_CHANNELS), message(CHANNELS_LIST, u32(0))
    assert found.from_viewer(memoryview(attach)) == attach
    assert found.from_vm(memoryview(channels)) == channels


def test_first_message_may_come_with_the_result() -> None:
    found = MainFilter(Rules(()))
    found.from_vm(memoryview(link_reply()))
    found.from_viewer(memoryview(ticket()))
    both = RESULT + message(CHANNELS_LIST, u32(0))
    assert found.from_vm(memoryview(both)) == both


def test_refused_link_goes_on_and_nothing_may_follow() -> None:
    found = MainFilter(Rules(()))
    refusal = link_reply(error=7)
    assert found.from_vm(memoryview(refusal)) == refusal
    for way in (found.from_vm, found.from_viewer):
        with pytest.raises(NotUnderstoodError):
            way(memoryview(b"x"))


def test_wrong_ticket_is_told_and_nothing_may_follow() -> None:
    found = MainFilter(Rules(()))
    found.from_vm(memoryview(link_reply()))
    found.from_viewer(memoryview(ticket()))
    assert found.from_vm(memoryview(u32(7))) == u32(7)
    for way in (found.from_vm, found.from_viewer):
        with pytest.raises(NotUnderstoodError):
            way(memoryview(b"x"))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        # A message before its time could be one of the handshake to QEMU.
        (["viewer", ticket()], "out of turn"),
        (["vm", link_reply(), "viewer", ticket() + message(ATTACH_CHANNELS)], "out of turn"),
        (["vm", link_reply(), "viewer", ticket(), "viewer", b"x"], "out of turn"),
        (["vm", link_reply() + RESULT], "out of turn"),
        (["vm", link_reply(), "vm", RESULT], "out of turn"),
        (["vm", link_reply(), "viewer", u32(2)], "something else than a ticket"),  # SASL
        (["vm", link_reply(), "viewer", u32(0)], "something else than a ticket"),
        (["vm", link_reply(capabilities=0b0011)], "short headers"),
        (["vm", link_reply(capabilities=0b1010)], "short headers"),
        (["vm", link_reply(capabilities=0)], "short headers"),
        (["vm", b"RFB 003.008\n" + bytes(10)], "not SPICE"),
        (["vm", b"REDQ" + u32(1, 2, 186)], "not SPICE"),
        (["vm", b"REDQ" + u32(2, 2, 177)], "not SPICE"),
        (["vm", b"REDQ" + u32(2, 2, 4097)], "not SPICE"),
        (["vm", b"REDQ" + u32(2, 2, 178) + bytes(166) + u32(1, 0, 178)], "not SPICE"),
        (["vm", b"REDQ" + u32(2, 2, 178) + bytes(166) + u32(1, 0, 0)], "not SPICE"),
        (["vm", b"REDQ" + u32(2, 2, 178) + bytes(166) + u32(2**32 - 1, 0, 178)], "not SPICE"),
    ],
)
def test_byte_out_of_turn_ends_the_channel(steps: list[str | bytes], reason: str) -> None:
    found = MainFilter(Rules(()))
    ways = {"viewer": found.from_viewer, "vm": found.from_vm}
    with pytest.raises(NotUnderstoodError, match=reason):
        for side, part in zip(steps[::2], steps[1::2], strict=True):
            assert isinstance(side, str) and isinstance(part, bytes)  # noqa: PT018
            ways[side](memoryview(part))
