"""The rules: which agent messages and capabilities belong to which purpose."""

import pytest

from spicetunnel.spice.agent import PURPOSES, Rules
from tests.stage.spice import announced, announcement, u32
from tests.unit.spice.conversation import EVERYTHING, VIEW_ONLY

REPLY_CAP, FILES_DISABLED, GRAB_SERIAL, GRAPHICS_DEVICES = 2, 13, 17, 15
LINE_ENDS = {8, 9}
CLIPBOARD_CAPS = {3, 5, 6, 16}


def test_view_only_sends_the_agent_its_capabilities_and_requests_alone() -> None:
    rules = Rules(VIEW_ONLY)
    assert rules.from_viewer == {6, 8, 14}
    assert rules.from_vm == {3, 4, 6, 7, 9}


def test_nothing_is_let_through_that_no_purpose_names() -> None:
    """13 is the server's own to send, 16 too; from 17 on there is none yet."""
    rules = Rules(EVERYTHING)
    assert rules.from_viewer == {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15}
    assert rules.from_vm == {3, 4, 6, 7, 8, 9, 11}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_purpose_alone_gives_its_own_messages(purpose: str) -> None:
    from_viewer, from_vm, _ = PURPOSES[purpose]
    rules = Rules({purpose})
    assert rules.from_viewer == from_viewer | {6}
    assert rules.from_vm == from_vm | {3, 6}


def test_unknown_purpose_is_an_error() -> None:
    with pytest.raises(ValueError, match="teleport"):
        Rules({"mouse", "teleport"})


def test_view_only_clears_capabilities_in_both_directions() -> None:
    rules, all_of_them = Rules(VIEW_ONLY), announcement(*range(32))
    kept = CLIPBOARD_CAPS | LINE_ENDS | {REPLY_CAP, 10}
    assert announced(rules.for_agent(all_of_them)) == kept
    assert announced(rules.for_viewer(all_of_them)) == kept | {FILES_DISABLED}
    assert GRAB_SERIAL not in kept  # the viewer's dropped grabs would make its numbers wrong


def test_no_purpose_leaves_nothing_but_replies_and_line_ends() -> None:
    assert announced(Rules(()).for_agent(announcement(*range(32)))) == LINE_ENDS | {REPLY_CAP}


def test_files_are_disabled_for_the_viewer_even_by_an_agent_that_announces_nothing() -> None:
    assert announced(Rules(()).for_viewer(announcement())) == {FILES_DISABLED}
    assert announced(Rules({"files-to-vm"}).for_viewer(announcement())) == set()


def test_all_purposes_leave_all_capabilities_that_viewers_and_agents_have() -> None:
    everything = Rules(EVERYTHING).for_viewer(announcement(*range(32)))
    assert announced(everything) == set(range(18)) - {FILES_DISABLED, GRAPHICS_DEVICES}


@pytest.mark.parametrize("body", [b"", b"\1", u32(1), u32(1) + b"\xff\xff\xff", u32(1, 2**32 - 1)])
def test_announcement_of_any_size_keeps_its_size(body: bytes) -> None:
    for changed in (Rules(VIEW_ONLY).for_agent(body), Rules(VIEW_ONLY).for_viewer(body)):
        assert len(changed) == len(body)
        assert changed[:4] == body[:4]


def test_words_of_tomorrows_capabilities_are_cleared() -> None:
    changed = Rules(EVERYTHING).for_agent(u32(1, 0, 2**32 - 1, 2**32 - 1) + b"\xff\xff")
    assert changed == u32(1, 0, 0, 0) + b"\0\0"
