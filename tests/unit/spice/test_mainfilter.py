"""The filter of a main channel: what passes, what is dropped, what ends the channel."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicetunnel.spice.agent import Rules
from spicetunnel.spice.handshake import NotUnderstoodError
from spicetunnel.spice.mainfilter import FROM_VIEWER, FROM_VM
from tests.stage.spice import (
    AGENT_CONNECTED_TOKENS,
    AGENT_DATA,
    AGENT_DISCONNECTED,
    AGENT_REPLY,
    AGENT_START,
    ATTACH_CHANNELS,
    CAPABILITIES,
    CLIPBOARD,
    DISPLAY_CONFIG,
    FILE_DATA,
    FILE_START,
    FILE_STATUS,
    GRAB,
    MAX_CLIPBOARD,
    MONITORS,
    MOUSE,
    MOUSE_MODE_REQUEST,
    PIECE,
    RELEASE,
    REQUEST,
    VM_AGENT_DATA,
    VM_TOKENS,
    VOLUME,
    Message,
    agent_message,
    announced,
    announcement,
    message,
    messages,
    pieces,
    u32,
)
from tests.unit.spice.conversation import EVERYTHING, INIT_MESSAGE, Conversation, cut_at

#: Each kind that view-only drops, as a real viewer would send it.
DROPPED = {
    "mouse": pieces(MOUSE, u32(10, 20, 2) + b"\0"),
    "monitors": pieces(MONITORS, u32(1, 0, 480, 640, 32, 0, 0)),
    "grab": pieces(GRAB, u32(0, 1)),
    "clipboard": pieces(CLIPBOARD, u32(0, 1) + b"rm -rf /\n"),
    "large clipboard": pieces(CLIPBOARD, u32(0, 1) + b"x" * 100_000),
    "release": pieces(RELEASE, u32(0)),
    "display settings": pieces(DISPLAY_CONFIG, u32(1, 0)),
    "volume": pieces(VOLUME, b"\1\0\2" + b"\xff" * 4),
    "file data": pieces(FILE_DATA, u32(1, 65536, 0) + b"x" * 65536),
    "the server's own": pieces(13),
    "of tomorrow": pieces(99, b"?"),
}
ALLOWED = [
    *pieces(CAPABILITIES, announcement(2)),
    *pieces(REQUEST, u32(0, 1)),
    *pieces(MAX_CLIPBOARD, u32(1000)),
    message(ATTACH_CHANNELS),
    message(MOUSE_MODE_REQUEST, b"\2\0"),
]


@pytest.mark.parametrize("name", DROPPED)
def test_view_only_drops_it_and_gives_its_tokens_back(name: str) -> None:
    here = Conversation()
    here.viewer(*DROPPED[name])
    assert here.to_vm == b""
    assert here.refunded() == len(DROPPED[name])
    here.viewer(*ALLOWED)
    assert here.to_vm == b"".join(ALLOWED)
    assert here.refunded() == len(DROPPED[name])


def test_without_a_filter_rule_for_it_each_of_them_passes() -> None:
    """So it is the rules that drop them."""
    here = Conversation(EVERYTHING)
    sent = [*itertools.chain(*(DROPPED[name] for name in list(DROPPED)[:-2])), *ALLOWED]
    here.viewer(*sent)
    assert here.to_vm == b"".join(sent)
    assert here.refunded() == 0


def test_file_is_refused_as_an_agent_would() -> None:
    here = Conversation()
    here.viewer(*pieces(FILE_START, u32(77) + b"[vdagent-file-xfer]\nname=x\nsize=3\n\0"))
    assert here.to_vm == b""
    assert here.viewer_heard() == [Message(FILE_STATUS, u32(77, 1))]
    assert here.refunded() == 1


def test_refusal_of_a_file_waits_for_the_end_of_the_agents_message() -> None:
    here = Conversation()
    first, *rest = pieces(CLIPBOARD, u32(0, 1) + b"y" * 5000, VM_AGENT_DATA)
    here.vm(first)
    here.viewer(*pieces(FILE_START, u32(5)))
    assert here.refunded() == 1  # the token need not wait
    here.vm(*rest)
    assert here.viewer_heard() == [
        Message(CLIPBOARD, u32(0, 1) + b"y" * 5000),
        Message(FILE_STATUS, u32(5, 1)),
    ]


def test_what_the_filter_adds_never_splits_a_message_of_the_vms() -> None:
    here = Conversation()
    sent = message(4, bytes(5000)) + message(112) + b"".join(pieces(GRAB, b"", VM_AGENT_DATA))
    for at in range(len(sent)):
        here.viewer(*DROPPED["mouse"])
        here.vm(sent[at : at + 1])
    assert [each.body for each in messages(here.to_viewer) if each.kind == 4] == [bytes(5000)]
    assert here.refunded() == len(sent)


def test_tokens_of_a_viewer_that_does_not_read_are_given_back_in_one_message() -> None:
    here = Conversation()
    for _ in range(100_000):
        here.filter.from_viewer(memoryview(DROPPED["mouse"][0]))
    assert messages(here.filter.for_viewer()) == [Message(VM_TOKENS, u32(100_000))]
    assert here.filter.for_viewer() == b""


def test_refused_files_that_the_viewer_does_not_hear_of_have_a_bound() -> None:
    here = Conversation()
    for number in range(1000):
        here.filter.from_viewer(memoryview(b"".join(pieces(FILE_START, u32(number)))))
    answers = here.filter.for_viewer()
    assert len(answers) < 3000


def test_capabilities_are_cleared_on_their_way() -> None:
    here = Conversation()
    here.viewer(*pieces(CAPABILITIES, announcement(0, 1, 2, 5)))
    here.vm(*pieces(CAPABILITIES, announcement(0, 1, 2, 5), VM_AGENT_DATA))
    ((kind, for_agent),) = here.agent_heard()
    ((_, for_viewer),) = here.viewer_heard()
    assert (kind, announced(for_agent)) == (CAPABILITIES, {2, 5})
    assert announced(for_viewer) == {2, 5, 13}


def test_clipboard_goes_from_the_vm_to_the_viewer() -> None:
    here = Conversation()
    here.vm(*pieces(GRAB, u32(0, 1), VM_AGENT_DATA))
    here.viewer(*pieces(REQUEST, u32(0, 1)))
    here.vm(*pieces(CLIPBOARD, u32(0, 1) + b"seen" * 25_000, VM_AGENT_DATA))
    here.vm(*pieces(RELEASE, u32(0), VM_AGENT_DATA))
    assert [each.kind for each in here.agent_heard()] == [REQUEST]
    assert [each.kind for each in here.viewer_heard()] == [GRAB, CLIPBOARD, RELEASE]


def test_guest_does_not_get_to_ask_for_the_viewers_clipboard() -> None:
    here = Conversation()
    here.vm(*pieces(REQUEST, u32(0, 1), VM_AGENT_DATA))
    here.vm(*pieces(AGENT_REPLY, u32(2, 1), VM_AGENT_DATA))
    assert [each.kind for each in here.viewer_heard()] == [AGENT_REPLY]


def test_agents_message_comes_together_from_any_pieces() -> None:
    """QEMU sends the header whole; but nobody promises that."""
    whole = b"".join(
        agent_message(kind, body)
        for kind, body in (
            (GRAB, u32(0, 1)),
            (REQUEST, u32(0, 1)),
            (CAPABILITIES, announcement(1, 2)),
            (RELEASE, b""),
            (CLIPBOARD, u32(0, 1) + b"z" * 3000),
        )
    )
    for size in (1, 3, 19, 20, 21, 48, 2047, 2048):
        here = Conversation()
        for at in range(0, len(whole), size):
            here.vm(message(VM_AGENT_DATA, whole[at : at + size]))
        assert here.viewer_heard() == [
            Message(GRAB, u32(0, 1)),
            Message(CAPABILITIES, announcement(2, 13)),
            Message(RELEASE, b""),
            Message(CLIPBOARD, u32(0, 1) + b"z" * 3000),
        ]


def all_that_passes_and_is_dropped() -> bytes:
    dropped = (b"".join(DROPPED[name]) for name in DROPPED)
    return b"".join(one + other for one, other in zip(dropped, itertools.cycle(ALLOWED)))


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 25, 26, 27, 2053, 2054, 2055])
def test_fragments_of_any_size_from_the_viewer(size: int) -> None:
    sent, whole = all_that_passes_and_is_dropped(), Conversation()
    whole.viewer(sent)
    here = Conversation()
    here.viewer(*(sent[at : at + size] for at in range(0, len(sent), size)))
    assert (here.to_vm, here.refunded()) == (whole.to_vm, whole.refunded())
    assert {each.kind for each in here.agent_heard()} <= {CAPABILITIES, REQUEST, MAX_CLIPBOARD}


def test_split_at_every_byte_from_the_viewer() -> None:
    sent = b"".join([*DROPPED["mouse"], *ALLOWED, *DROPPED["monitors"], *ALLOWED])
    whole = Conversation()
    whole.viewer(sent)
    for at in range(1, len(sent)):
        here = Conversation()
        here.viewer(sent[:at], sent[at:])
        assert here.to_vm == whole.to_vm


def test_split_at_every_byte_from_the_vm() -> None:
    sent = INIT_MESSAGE + b"".join(
        [
            *pieces(CAPABILITIES, announcement(1, 2), VM_AGENT_DATA),
            *pieces(REQUEST, u32(0, 1), VM_AGENT_DATA),
            *pieces(GRAB, u32(0, 1), VM_AGENT_DATA),
            message(4, bytes(100)),
        ]
    )
    whole = Conversation()
    whole.vm(sent)
    for at in range(1, len(sent)):
        here = Conversation()
        here.vm(sent[:at], sent[at:])
        assert here.to_viewer == whole.to_viewer


_BODIES = st.binary(max_size=60) | st.binary(min_size=2000, max_size=5000)
_SAYINGS = st.lists(
    st.tuples(st.integers(0, 18), _BODIES).map(lambda saying: pieces(*saying))
    | st.sampled_from([[message(AGENT_START, u32(1))], [message(ATTACH_CHANNELS)]]),
    max_size=8,
)


@given(
    _SAYINGS,
    st.lists(st.integers(0, 100_000), max_size=12),
    st.frozensets(st.sampled_from(sorted(EVERYTHING))),
)
@settings(max_examples=200, deadline=None)
def test_agent_hears_only_what_the_rules_name(
    sayings: list[list[bytes]], places: list[int], purposes: frozenset[str]
) -> None:
    """Whatever a viewer says, in whatever fragments: what reaches the VM is whole messages, each of
    a type that is allowed, and each piece that does not is given back.
    """
    here = Conversation(purposes)
    sent = b"".join(itertools.chain(*sayings))
    try:
        here.viewer(*cut_at(sent, places))
    except NotUnderstoodError:
        pass  # a message of a type that fits in one piece, in several
    else:
        given_ = sum(each.kind == AGENT_DATA for each in messages(sent))
        arrived = sum(each.kind == AGENT_DATA for each in messages(here.to_vm))
        assert here.refunded() == given_ - arrived
    assert {each.kind for each in here.agent_heard()} <= Rules(purposes).from_viewer


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_understood_or_end_the_channel(data: bytes, places: list[int]) -> None:
    for side in ("viewer", "vm"):
        here = Conversation()
        say = here.viewer if side == "viewer" else here.vm
        try:
            say(*cut_at(data, places))
        except NotUnderstoodError:
            pass
        assert {each.kind for each in here.agent_heard()} <= {CAPABILITIES, REQUEST, MAX_CLIPBOARD}


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message(101, bytes(8)), "type 101"),
        (message(102), "type 102"),
        (message(5, b"migration data, which may hold agent messages"), "type 5"),
        (message(109), "type 109"),
        (message(110, u32(1)), "type 110"),
        (message(112, b"?"), "type 112"),
        (message(113), "type 113"),
        (message(0), "type 0"),
        (message(65535), "type 65535"),
        (message(ATTACH_CHANNELS, b"?"), "type 104 and 1 bytes"),
        (message(AGENT_START), "type 106 and 0 bytes"),
        (message(AGENT_START, bytes(5)), "type 106 and 5 bytes"),
        (message(3, bytes(2**16)), "type 3"),
        (message(AGENT_DATA), "a piece of 0 bytes"),
        (message(AGENT_DATA, bytes(PIECE + 1)), "a piece of 2049 bytes"),
        (message(AGENT_DATA, agent_message(CAPABILITIES)[:19]), "header is in several pieces"),
        (message(AGENT_DATA, bytes(20)), "protocol 0"),
        (message(AGENT_DATA, agent_message(REQUEST) + b"x"), "longer than its agent message"),
        (
            message(AGENT_DATA, agent_message(REQUEST) + agent_message(MOUSE, bytes(13))),
            "longer than its agent message",
        ),
        (b"".join(pieces(CAPABILITIES, bytes(PIECE))), "type 6 in several pieces"),
        (b"".join(pieces(REQUEST, bytes(PIECE))), "type 8 in several pieces"),
    ],
)
def test_unknown_bytes_from_the_viewer_end_the_channel(sent: bytes, reason: str) -> None:
    here = Conversation()
    with pytest.raises(NotUnderstoodError, match=reason):
        here.viewer(sent)


def test_unknown_header_is_refused_before_its_body_comes() -> None:
    here = Conversation()
    with pytest.raises(NotUnderstoodError):
        here.viewer(message(AGENT_DATA, bytes(PIECE + 1))[:6])


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message(1, u32(0)), "type 1 from the VM"),
        (message(2, b"x"), "type 2 from the VM"),
        (message(8, bytes(30)), "type 8 from the VM"),
        (message(100), "type 100 from the VM"),
        (message(119), "type 119 from the VM"),
        (message(VM_AGENT_DATA), "a piece of 0 bytes"),
        (message(VM_AGENT_DATA, bytes(PIECE + 1)), "a piece of 2049 bytes"),
        (message(VM_AGENT_DATA, bytes(20)), "protocol 0"),
        (
            message(VM_AGENT_DATA, agent_message(CAPABILITIES, bytes(2049))[:20]),
            "2049 bytes of cap",
        ),
    ],
)
def test_unknown_bytes_from_the_vm_end_the_channel(sent: bytes, reason: str) -> None:
    here = Conversation()
    with pytest.raises(NotUnderstoodError, match=reason):
        here.vm(sent)


def test_tables_have_what_viewer_and_vm_need() -> None:
    here = Conversation()
    for kind, size in FROM_VIEWER.items():
        here.viewer(message(kind, bytes(size)))
    assert {each.kind for each in messages(here.to_vm)} == FROM_VIEWER.keys()
    for kind in FROM_VM - {VM_AGENT_DATA}:
        here.vm(message(kind, bytes(9)))
    assert {each.kind for each in messages(here.to_viewer)} == FROM_VM - {VM_AGENT_DATA}


class TestAgentThatLeaves:
    """spice-server keeps its count of a viewer's pieces, so the filter may not begin anew."""

    LEFT = message(AGENT_DISCONNECTED, u32(0))
    BACK = message(AGENT_CONNECTED_TOKENS, u32(10))
    START = message(AGENT_START, u32(2**32 - 1))

    def test_start_within_a_message_does_not_make_its_middle_a_beginning(self) -> None:
        """The attack: to the server, the second piece still belongs to the first."""
        here = Conversation({"clipboard-to-vm"})
        first, second, third = pieces(CLIPBOARD, b"x" * (2 * PIECE + 100))
        inner = message(AGENT_DATA, agent_message(RELEASE).ljust(PIECE, b"\0"))
        assert len(inner) == len(second)
        here.viewer(first, self.START, inner, third, *pieces(MOUSE, bytes(13)))
        assert [each.kind for each in here.agent_heard()] == [CLIPBOARD]

    def test_message_that_has_begun_goes_on_to_its_end(self) -> None:
        here = Conversation({"clipboard-to-vm"})
        first, *rest = pieces(CLIPBOARD, b"x" * 10_000)
        here.viewer(first)
        here.vm(self.LEFT, self.BACK)
        here.viewer(self.START, *rest, *pieces(MOUSE, bytes(13)), *pieces(GRAB, u32(1)))
        assert [each.kind for each in here.agent_heard()] == [CLIPBOARD, GRAB]

    def test_what_begins_before_the_next_start_is_dropped_without_a_token(self) -> None:
        """The viewer's tokens are set anew; one too many, and QEMU would drop the viewer."""
        here = Conversation()
        here.viewer(*DROPPED["mouse"])
        here.vm(self.LEFT)
        here.viewer(*ALLOWED[:2], *DROPPED["mouse"])
        here.vm(self.BACK)
        here.viewer(*ALLOWED[:2], *DROPPED["mouse"])
        assert here.agent_heard() == []
        assert here.refunded() == 1
        here.viewer(self.START, *ALLOWED[:2], *DROPPED["mouse"])
        assert [each.kind for each in here.agent_heard()] == [CAPABILITIES, REQUEST]
        assert here.refunded() == 2

    def test_tokens_that_were_still_owed_are_forgotten(self) -> None:
        here = Conversation()
        here.filter.from_viewer(memoryview(DROPPED["mouse"][0]))
        here.vm(self.LEFT[:3], self.LEFT[3:], self.BACK)
        # The token was owed before the agent left, so it may come before that, and not after.
        kinds = [each.kind for each in messages(here.to_viewer)]
        assert kinds == [VM_TOKENS, AGENT_DISCONNECTED, AGENT_CONNECTED_TOKENS]
        here = Conversation()
        here.vm(self.LEFT[:3])
        here.viewer(*DROPPED["mouse"])  # sent before the viewer can know
        here.vm(self.LEFT[3:], self.BACK)
        assert here.refunded() == 0

    def test_half_of_an_agents_message_is_forgotten(self) -> None:
        here = Conversation()
        here.vm(pieces(GRAB, bytes(3000), VM_AGENT_DATA)[0], self.LEFT, self.BACK)
        here.to_viewer = b""
        here.vm(*pieces(CAPABILITIES, announcement(), VM_AGENT_DATA))
        assert here.viewer_heard() == [Message(CAPABILITIES, announcement(13))]

    def test_viewer_that_never_starts_gets_nothing_through(self) -> None:
        here = Conversation(started=False)
        here.vm(INIT_MESSAGE)
        here.viewer(*ALLOWED[:3], message(108, u32(5)))
        assert here.to_vm == b""
        assert here.refunded() == 0
