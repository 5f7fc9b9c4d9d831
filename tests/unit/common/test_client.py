"""The client of control.sock: what it sends, and what it makes of each answer or of none."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spicetunnel.common.client import NoBrokerError, connect, receive, receive_rows, send
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import MAX_PACKET


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes
    return "."


@contextmanager
def listening(run_dir: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{run_dir}/control.sock")
        listener.listen(0)
        yield listener


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end, and the broker's."""
    ours, brokers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    with ours, brokers:
        yield ours, brokers


Pair = tuple[socket.socket, socket.socket]


def say(broker: socket.socket, *messages: object) -> None:
    for message in messages:
        broker.send(json.dumps(message).encode())


def test_a_request_and_its_answer(run_dir: str) -> None:
    with listening(run_dir) as listener, connect(run_dir) as ours:
        broker, _ = listener.accept()
        with broker:
            send(ours, {"op": "whoami"})
            assert json.loads(broker.recv(100)) == {"op": "whoami"}
            say(broker, {"event": "person", "user": "anne"})
            assert receive(ours) == {"event": "person", "user": "anne"}


def test_no_broker_listens(run_dir: str) -> None:
    with pytest.raises(NoBrokerError) as raised:
        connect(run_dir)
    reason = "the server's broker does not answer at . (no such file or directory)"
    assert raised.value.reason == reason
    assert raised.value.exit_code == 70  # for the person at a gate, 69 is a VM that is off


def test_full_backlog_does_not_block_with_timeout_0(run_dir: str) -> None:
    with listening(run_dir), connect(run_dir), pytest.raises(NoBrokerError):
        connect(run_dir, timeout=0)


def test_refusal_has_the_brokers_words_and_exit_code(pair: Pair) -> None:
    ours, broker = pair
    say(broker, {"event": "refused", "code": 77, "reason": "no", "hint": "ask"})
    with pytest.raises(SpicetunnelError) as raised:
        receive(ours)
    assert (raised.value.reason, raised.value.hint, raised.value.exit_code) == ("no", "ask", 77)


@pytest.mark.parametrize("code", [None, True, -1, "77"])
def test_refusal_without_an_exit_code(pair: Pair, code: object) -> None:
    ours, broker = pair
    say(broker, {"event": "refused", "code": code, "reason": "no"})
    with pytest.raises(ProtocolError):
        receive(ours)


def test_broker_that_goes_away(pair: Pair) -> None:
    ours, broker = pair
    broker.close()
    with pytest.raises(NoBrokerError, match="went away"):
        send(ours, {"op": "list"})
    with pytest.raises(NoBrokerError, match="went away"):
        receive(ours)


def test_broker_that_says_nothing_in_time(pair: Pair) -> None:
    ours, _ = pair
    ours.settimeout(0.01)
    with pytest.raises(NoBrokerError):
        receive(ours)


def test_message_that_is_too_long_is_not_sent(pair: Pair) -> None:
    with pytest.raises(ProtocolError):
        send(pair[0], {"reason": "x" * MAX_PACKET})


def test_rows_of_every_part(pair: Pair) -> None:
    ours, broker = pair
    say(broker, {"event": "vms", "vms": [{"n": 1}, {"n": 2}], "more": True})
    say(broker, {"event": "vms", "vms": [{"n": 3}]})
    assert receive_rows(ours, "vms") == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize(
    "answer",
    [
        {"event": "vms"},
        {"event": "vms", "vms": {}},
        {"event": "vms", "vms": [], "more": 1},
    ],
)
def test_malformed_rows(pair: Pair, answer: object) -> None:
    ours, broker = pair
    say(broker, answer)
    with pytest.raises(ProtocolError):
        receive_rows(ours, "vms")


def test_refusal_amid_the_rows(pair: Pair) -> None:
    ours, broker = pair
    say(broker, {"event": "vms", "vms": [], "more": True})
    say(broker, {"event": "refused", "code": 70, "reason": "a fault", "hint": ""})
    with pytest.raises(SpicetunnelError, match="a fault"):
        receive_rows(ours, "vms")


def test_descriptor_beside_an_answer_is_refused(pair: Pair) -> None:
    ours, broker = pair
    socket.send_fds(broker, [b'{"event":"person"}'], [0])
    with pytest.raises(ProtocolError):
        receive(ours)
