"""A session's process: what the broker may have it do, and how it ends."""

import os
import signal
import socket
import time

import pytest

from spicetunnel.common.protocol import Message
from tests.unit.broker.server import wait_until
from tests.unit.relay.conftest import Relay, alive


def test_bytes_and_their_counts(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = relay.channel(broker)
    viewer.sendall(b"12345")
    assert vm.recv(10) == b"12345"
    vm.sendall(b"1234567")
    assert viewer.recv(10) == b"1234567"
    while broker.hear() != {"event": "usage", "channels": {"1": [6, 7]}}:
        pass  # the last time one looked
    viewer.close()
    assert vm.recv(1) == b""
    vm.close()
    closed = {"event": "closed", "channel": 1, "up": 6, "down": 7, "by": "viewer"}
    assert broker.hear() == closed


def test_end_closes_reports_and_exits(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = relay.channel(broker)
    pid = relay.pid()
    broker.say({"op": "end"})
    (closed,) = [each for each in broker.hear_all() if each["event"] == "closed"]
    assert closed == {"event": "closed", "channel": 1, "up": 1, "down": 0, "by": "relay"}
    assert viewer.recv(1) == vm.recv(1) == b""
    wait_until(lambda: not alive(pid), "the process to end")


@pytest.mark.parametrize(
    "request_",
    [
        {"v": 2, "op": "begin", "session": "0badbeef", "grace": 60},
        {"v": 1, "op": "begin", "session": "../../x", "grace": 60},
        {"v": 1, "op": "begin", "session": "0badbeef", "grace": -1},
        {"v": 1, "op": "begin", "session": "0badbeef"},
        {"v": 1, "op": "channel"},
        {"v": 1},
    ],
)
def test_request_that_is_none_ends_its_process_alone(relay: Relay, request_: Message) -> None:
    broker = relay.ask()
    broker.say(request_)
    assert broker.hear_all() == []
    assert relay.log("fault")
    relay.begin()


@pytest.mark.parametrize(
    ("message", "descriptors"),
    [
        ({"op": "channel", "channel": 1}, 1),
        ({"op": "channel", "channel": 1}, 0),
        ({"op": "end"}, 2),
        ({"op": 7}, 0),
    ],
)
def test_broken_protocol_ends_the_session(relay: Relay, message: Message, descriptors: int) -> None:
    """The broker cuts what its process leaves."""
    broker = relay.begin()
    broker.say(message, *[0] * descriptors)
    assert broker.hear_all() == []
    assert "ProtocolError" in str(relay.log("fault")[0]["reason"])


def test_next_broker_gets_the_duplicates(relay: Relay) -> None:
    first = relay.begin()
    viewer, vm = relay.channel(first)
    side, side_vm = relay.channel(first, 2)
    first.close()
    side.close()
    assert side_vm.recv(1) == b""
    side_vm.close()
    viewer.sendall(b"on")
    assert vm.recv(2) == b"on"
    second = relay.again()
    hello = second.hear()
    assert (hello["event"], hello["session"], hello["channels"]) == ("begun", "0badbeef", 1)
    assert second.hear() == {"event": "kept", "channels": {"1": [3, 0, False]}}
    closed = {"event": "closed", "channel": 2, "up": 1, "down": 0, "by": "viewer"}
    assert second.hear() == closed
    with socket.socket(fileno=second.fds.pop()) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
    assert vm.recv(1) == b""
    assert viewer.recv(1) == b""


def test_many_channels_come_in_several_packets(relay: Relay) -> None:
    first = relay.begin()
    ends = [relay.channel(first, number) for number in range(1, 251)]
    first.close()
    second = relay.again()
    assert second.hear()["channels"] == 250
    kept: dict[str, object] = {}
    while len(kept) < 250:
        part = second.hear()["channels"]
        assert isinstance(part, dict)
        kept.update(part)
    assert len(second.fds) == 250
    assert ends[-1][0].fileno() > 0


def test_last_connection_of_the_broker_counts(relay: Relay) -> None:
    first = relay.begin()
    viewer, _ = relay.channel(first)
    second = relay.again()
    assert second.hear()["event"] == "begun"
    assert [each for each in first.hear_all() if each["event"] != "usage"] == []
    second.say({"op": "end"})
    assert viewer.recv(1) == b""


def test_session_ends_after_its_grace_without_a_broker(relay: Relay) -> None:
    broker = relay.begin(grace=1)
    viewer, vm = relay.channel(broker)
    pid = relay.pid()
    time.sleep(2)
    viewer.sendall(b"x")
    assert vm.recv(1) == b"x", "not while there is one"
    broker.close()
    assert vm.recv(1) == b""
    assert viewer.recv(1) == b""
    wait_until(lambda: not alive(pid), "the process to end")


def test_broker_that_does_not_read_stalls_no_channel(relay: Relay) -> None:
    """And hears of every end when it does."""
    broker = relay.begin()
    relay.channel(broker)
    for number in range(2, 1200):
        viewer, vm = relay.channel(broker, number)
        viewer.close()
        assert vm.recv(1) == b""
        vm.close()
    ended = [broker.hear() for _ in range(1198)]
    numbers = [each["channel"] for each in ended if each["event"] == "closed"]
    while len(numbers) < 1198:
        message = broker.hear()
        if message["event"] == "closed":
            numbers.append(message["channel"])
    assert numbers == list(range(2, 1200))


def test_held_viewer_is_released_by_the_broker(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = relay.channel(broker, hold=True)
    vm.close()
    lost = [broker.hear(), broker.hear()]
    assert {"event": "lost", "channel": 1} in lost
    viewer.settimeout(0.3)
    with pytest.raises(TimeoutError):
        viewer.recv(1)
    broker.say({"op": "release", "channel": 1})
    viewer.settimeout(10)
    assert viewer.recv(1) == b""
    while (message := broker.hear())["event"] != "closed":
        pass
    assert message["by"] == "vm"


def test_kill_ends_the_very_process(relay: Relay) -> None:
    broker = relay.begin()
    _, vm = relay.channel(broker)
    pid = relay.pid()
    os.kill(pid, signal.SIGSTOP)
    pidfd = os.pidfd_open(pid)
    other = relay.ask()
    other.say({"v": 1, "op": "kill"}, pidfd)
    assert other.hear() == {"event": "killed"}
    wait_until(lambda: not alive(pid), "the process to end")
    assert vm.recv(1) == b""
    again = relay.ask()
    again.say({"v": 1, "op": "kill"}, pidfd)
    os.close(pidfd)
    assert again.hear() == {"event": "killed"}, "it is gone, as was wished"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take /proc away")
def test_kill_needs_no_sight_of_other_processes(relay: Relay) -> None:
    """The unit has ProtectProc=invisible, and a session's process is not dumpable: not even its
    own user sees it in /proc.
    """
    relay.stop()
    relay.start(before=("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "-"))
    broker = relay.begin()
    _, vm = relay.channel(broker)
    pidfd = os.pidfd_open(relay.pid())
    other = relay.ask()
    other.say({"v": 1, "op": "kill"}, pidfd)
    os.close(pidfd)
    assert other.hear() == {"event": "killed"}
    assert vm.recv(1) == b""


def test_kill_of_what_is_no_process_ends_its_own_alone(relay: Relay) -> None:
    for fds in ((), (0,), (0, 0)):
        broker = relay.ask()
        broker.say({"v": 1, "op": "kill"}, *fds)
        assert broker.hear_all() == []
    relay.begin()


def test_connection_that_says_nothing_is_not_the_next_broker(relay: Relay) -> None:
    """The parent's, which looks who listens there."""
    broker = relay.begin()
    for _ in range(5):
        relay.pid()
    viewer, vm = relay.channel(broker)
    viewer.sendall(b"x")
    assert vm.recv(1) == b"x"
