"""Packets of control.sock: what is a message, and what is dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import MAX_PACKET, decode, encode, flag, number, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_encoded_is_decoded(message: dict[str, object]) -> None:
    packet = encode(message)
    assert decode(packet) == message
    assert packet.isascii()
    assert b"\n" not in packet


@pytest.mark.parametrize(
    "packet",
    [b"", b"[]", b"1", b"null", b'"x"', b"{", b"\xff", b"{}{}", b"{'a':1}", b"[" * 60000],
)
def test_not_one_json_object(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(packet)


def test_too_long_a_packet_is_never_sent() -> None:
    with pytest.raises(ProtocolError):
        encode({"x": "y" * MAX_PACKET})


@pytest.mark.parametrize("wrong", [None, 1, True, [], {}])
def test_text_is_a_string(wrong: object) -> None:
    with pytest.raises(ProtocolError):
        text({"key": wrong}, "key")


def test_text_may_have_a_default() -> None:
    assert text({}, "key", "default") == "default"
    with pytest.raises(ProtocolError):
        text({}, "key")


@pytest.mark.parametrize("wrong", [None, True, -1, 1.0, "1", 2**63, []])
def test_number_is_a_natural_number(wrong: object) -> None:
    with pytest.raises(ProtocolError):
        number({"key": wrong}, "key")


@pytest.mark.parametrize("wrong", [0, 1, "true", []])
def test_flag_is_true_or_false(wrong: object) -> None:
    with pytest.raises(ProtocolError):
        flag({"key": wrong}, "key")
