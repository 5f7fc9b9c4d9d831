"""Each line of the log is one JSON object, whatever values are logged."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicetunnel.broker.audit import Audit, client_address

HOSTILE = 'x\n{"event":"open","decision":"allow"}\r\x1b]0;owned\x07\x85\u2028\u202e\x00'


@given(st.text() | st.just(HOSTILE))
def test_no_value_can_start_a_line_or_control_a_terminal(value: str) -> None:
    stream = io.StringIO()
    Audit(stream).write("open", reason=value)
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert written.isascii()
    assert written[:-1].isprintable()
    assert json.loads(written)["event"] == "open"


def test_time_comes_first_and_is_utc() -> None:
    stream = io.StringIO()
    Audit(stream).write("start")
    entry = json.loads(stream.getvalue())
    assert list(entry) == ["time", "event"]
    assert entry["time"].endswith("+00:00")


def test_values_of_none_are_left_out() -> None:
    stream = io.StringIO()
    Audit(stream).write("open", client=None, uid=0)
    entry = json.loads(stream.getvalue())
    assert "client" not in entry
    assert entry["uid"] == 0


def test_long_values_are_truncated() -> None:
    stream = io.StringIO()
    Audit(stream).write("open", reason="x" * 100_000)
    assert len(stream.getvalue()) < 1000


@pytest.mark.parametrize(
    ("ssh_connection", "address"),
    [
        ("192.0.2.7 51514 192.0.2.1 22", "192.0.2.7"),
        ("2001:db8::7 51514 2001:db8::1 22", "2001:db8::7"),
        ("fe80::1%eth0 51514 fe80::2%eth0 22", "fe80::1%eth0"),
        ("", None),
        ("UNKNOWN 65535 UNKNOWN 65535", None),
        ("192.0.2.7\n 1 2 3", None),
        ("192.0.2.256 1 2 3", None),
        (" 192.0.2.7 1 2 3", None),
        ("fe80::1%\x1b]0;owned\x07 1 2 3", None),
        ("fe80::1%é 1 2 3", None),
        ("fe80::1%" + "x" * 16 + " 1 2 3", None),
    ],
)
def test_client_address_is_read_from_ssh_connection(
    ssh_connection: str, address: str | None
) -> None:
    assert client_address(ssh_connection) == address
