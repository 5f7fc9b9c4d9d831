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


class Log:
    """An audit log, with the clock that it goes by."""

    def __init__(self) -> None:
        self.stream, self.now = io.StringIO(), 0.0
        self.audit = Audit(self.stream, lambda: self.now)

    def refuse(self, reason: str, uid: int = 1, times: int = 1, **fields: object) -> None:
        for _ in range(times):
            self.audit.repeated("refused", reason, uid=uid, **fields)

    def told(self, now: float) -> list[tuple[object, ...]]:
        """The uid, the reason and the count of each line so far, at that time."""
        self.now = now
        self.audit.tell_repeated()
        lines = map(json.loads, self.stream.getvalue().splitlines())
        return [(line.get("uid"), line["reason"], line.get("more")) for line in lines]


def test_equal_refusals_share_a_line_after_the_first() -> None:
    log = Log()
    log.refuse("no", times=2581)
    assert log.told(0.0) == [(1, "no", None)]
    assert log.told(5.0) == [(1, "no", None), (1, "no", 2580)]
    log.refuse("no", times=3)  # it goes on
    assert log.told(9.0) == [(1, "no", None), (1, "no", 2580)]
    assert log.told(10.0)[2:] == [(1, "no", 3)]
    assert log.told(15.0)[3:] == []
    log.refuse("no")  # after a rest, it is told at once
    assert log.told(15.0)[3:] == [(1, "no", None)]


def test_refusals_of_others_and_for_other_reasons_have_lines_of_their_own() -> None:
    log = Log()
    log.refuse("no", times=100)
    log.refuse("no", uid=2)
    log.refuse("never")
    assert log.told(0.0) == [(1, "no", None), (2, "no", None), (1, "never", None)]


def test_refusals_of_two_sessions_of_one_account_are_counted_separately() -> None:
    log = Log()
    for session in ("aaaaaaaa", "bbbbbbbb"):
        log.refuse("no", times=2, session=session)
    assert len(log.told(0.0)) == 2
    assert len(log.told(5.0)) == 4


def test_many_different_refusals_of_one_user_have_a_bound_too() -> None:
    log = Log()
    for number in range(1000):
        log.refuse(f"reason {number}")
    log.refuse("no", uid=2)
    lines = log.told(0.0)
    assert len(lines) < 40
    assert lines[-1] == (2, "no", None)
    assert (1, "for many reasons", None) in lines


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
