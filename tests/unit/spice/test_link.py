"""The SPICE link message, byte by byte."""

import contextlib
import struct
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicetunnel.spice.link import (
    INVALID_DATA,
    INVALID_MAGIC,
    PERMISSION_DENIED,
    VERSION_MISMATCH,
    Link,
    LinkError,
    message_size,
    parse_message,
    refusal,
)

T = TypeVar("T")


def header(magic: bytes = b"REDQ", major: int = 2, minor: int = 2, size: int = 18) -> bytes:
    return struct.pack("<4sIII", magic, major, minor, size)


def message(
    connection_id: int = 0, kind: int = 1, number: int = 0, common: int = 0, channel: int = 0
) -> bytes:
    caps = bytes(4 * (common + channel))
    return struct.pack("<IBBIII", connection_id, kind, number, common, channel, 18) + caps


@pytest.mark.parametrize("size", [18, 26, 4096])
def test_header_gives_the_size_of_the_message(size: int) -> None:
    assert message_size(header(size=size)) == size


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (header(magic=b"RFB "), INVALID_MAGIC),
        (header(magic=b"SSH-"), INVALID_MAGIC),
        (header(magic=b"redq"), INVALID_MAGIC),
        (header(major=1), VERSION_MISMATCH),
        (header(major=3), VERSION_MISMATCH),
        (header(size=0), INVALID_DATA),
        (header(size=17), INVALID_DATA),
        (header(size=4097), INVALID_DATA),
        (header(size=2**32 - 1), INVALID_DATA),
    ],
)
def test_invalid_header_is_refused(wrong: bytes, code: int) -> None:
    with pytest.raises(LinkError) as refused:
        message_size(wrong)
    assert refused.value.code == code


def test_message_of_remote_viewer_11_is_parsed() -> None:
    """As captured: a main channel with two words of capabilities."""
    captured = bytes.fromhex("00000000 01 00 01000000 01000000 12000000 0b000000 0f000000")
    link = parse_message(captured)
    assert link == Link(0, 1, 0, can_be_read=True)
    assert link.is_main
    assert link.type_name == "main"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(1, "main"), (2, "display"), (3, "inputs"), (4, "cursor"), (5, "playback"), (6, "record"),
     (7, "tunnel"), (8, "smartcard"), (9, "usbredir"), (10, "port"), (11, "webdav"),
     (12, "type-12"), (255, "type-255")],
)  # fmt: skip
def test_channel_type_has_a_name(kind: int, name: str) -> None:
    assert Link(7, kind, 0).type_name == name


def test_side_channel_carries_its_connection_id() -> None:
    assert parse_message(message(connection_id=0xDEADBEEF, kind=2, number=3)) == Link(
        0xDEADBEEF, 2, 3
    )


def test_main_with_a_connection_id_is_refused() -> None:
    with pytest.raises(LinkError) as refused:
        parse_message(message(connection_id=1))
    assert refused.value.code == PERMISSION_DENIED


@pytest.mark.parametrize(
    "wrong",
    [
        message(common=1)[:-4],
        message(common=2, channel=2)[:-1],
        struct.pack("<IBBIII", 0, 1, 0, 2**31, 2**31, 18),
        struct.pack("<IBBIII", 0, 1, 0, 0, 0, 17),
        struct.pack("<IBBIII", 0, 1, 0, 0, 0, 2**32 - 1),
    ],
)
def test_message_is_refused_if_its_capabilities_lie_outside(wrong: bytes) -> None:
    with pytest.raises(LinkError) as refused:
        parse_message(wrong)
    assert refused.value.code == INVALID_DATA


def often(valid: T, others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Half of the draws are `valid`: drawn at random, it would practically never come."""
    return st.just(valid) | others


U8, U32 = st.integers(0, 2**8 - 1), st.integers(0, 2**32 - 1)
HEADERS = st.builds(
    header,
    magic=often(b"REDQ", st.binary(min_size=4, max_size=4)),
    major=often(2, st.integers(0, 4) | U32),
    minor=st.integers(0, 4) | U32,
    size=st.sampled_from([17, 18, 4096, 4097]) | st.integers(0, 5000) | U32,
)
COUNTS = st.integers(0, 20) | U32  # of capability words
FIELDS = st.tuples(often(0, U32), often(1, U8), U8, COUNTS, COUNTS, often(18, U32))


@settings(max_examples=300)
@given(HEADERS)
def test_any_header_gives_a_size_or_a_link_error(head: bytes) -> None:
    try:
        size = message_size(head)
    except LinkError:
        return
    assert 18 <= size <= 4096
    assert head == header(minor=int.from_bytes(head[8:12], "little"), size=size)


@given(FIELDS, st.binary(max_size=200))
def test_any_fields_give_a_link_or_a_link_error(fields: tuple[int, ...], rest: bytes) -> None:
    body = struct.pack("<IBBIII", *fields) + rest
    try:
        link = parse_message(body)
    except LinkError:
        return
    connection_id, kind, number, common, channel, offset = fields
    assert link == Link(connection_id, kind, number)
    assert 18 <= offset <= offset + 4 * (common + channel) <= len(body)
    assert connection_id == 0 or not link.is_main


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=18, max_size=4096))
def test_any_bytes_give_a_link_or_a_link_error(head: bytes, body: bytes) -> None:
    for parse in (lambda: message_size(head), lambda: parse_message(body)):
        with contextlib.suppress(LinkError):
            parse()


def test_refusal_is_a_link_reply() -> None:
    """In the layout of spice-server's own answers: 16 bytes of header, 178 of reply."""
    reply = refusal(PERMISSION_DENIED)
    assert reply[:16] == header(size=178)
    assert len(reply) == 16 + 178
    assert struct.unpack_from("<I", reply, 16) == (7,)
    assert not any(reply[20:190])


@pytest.mark.parametrize(
    ("capabilities", "can_be_read"),
    [(0b1011, True), (0b1101, True), (0b1001, True), (0b1000, False), (0b0011, False), (0, False)],
)
def test_link_says_whether_the_channel_can_be_read(capabilities: int, can_be_read: bool) -> None:
    words = struct.pack("<II", capabilities, 0b1001)
    at_the_end = struct.pack("<IBBIII", 0, 1, 0, 1, 1, 22) + b"gap!" + words
    assert parse_message(at_the_end).can_be_read is can_be_read
    of_the_channel = struct.pack("<IBBIII", 0, 1, 0, 0, 2, 18) + words
    assert not parse_message(of_the_channel).can_be_read
