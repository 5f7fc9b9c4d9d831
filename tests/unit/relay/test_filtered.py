"""A filtered channel in a session's process. What the filter lets through: tests/unit/spice."""

import socket
import threading
import time
from collections import deque

import pytest

from spicetunnel.common.protocol import Message
from spicetunnel.relay.filtered import READ
from tests.stage.spice import (
    MOUSE,
    VM_TOKENS,
    exactly,
    link_reply,
    message,
    messages,
    pass_the_link,
    pieces,
    ticket,
    u32,
)
from tests.unit.broker.server import wait_until
from tests.unit.relay.conftest import Relay, Speaker, alive

PING = 4
ATTACH = message(104)
MOUSE_PIECE = b"".join(pieces(MOUSE, bytes(13)))


def channel(
    relay: Relay, broker: Speaker, number: int = 1, *, hold: bool = False
) -> tuple[socket.socket, socket.socket]:
    """A view-only main channel past its link: the viewer's end and the VM's."""
    viewer, near_viewer = socket.socketpair()
    vm, near_vm = socket.socketpair()
    asked: Message = {"op": "channel", "channel": number, "hold": hold}
    asked["filter"] = ["clipboard-from-vm"]
    broker.say(asked, near_viewer.fileno(), near_vm.fileno())
    near_viewer.close()
    near_vm.close()
    for end in (viewer, vm):
        end.settimeout(10)
        relay.at_the_end(end.close)
    pass_the_link(viewer, vm)
    return viewer, vm


def closed(broker: Speaker) -> Message:
    while (heard := broker.hear())["event"] != "closed":
        pass
    return heard


def test_process_says_that_it_filters(relay: Relay) -> None:
    broker = relay.ask()
    broker.say({"v": 1, "op": "begin", "session": "0badbeef", "grace": 60})
    assert broker.hear()["filters"] is True


def test_unknown_bytes_end_the_channel_and_not_the_session(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = channel(relay, broker)
    other, other_vm = relay.channel(broker, 2)
    viewer.sendall(ATTACH + message(99, b"?") + ATTACH)
    heard = closed(broker)
    assert heard == {
        "event": "closed",
        "channel": 1,
        "up": len(ticket()) + 10,  # nothing that came with them went on
        "down": len(link_reply()) + 4 + 38,
        "by": "filter",
        "why": "a message of type 99 and 1 bytes from the viewer",
    }
    assert viewer.recv(1) == vm.recv(1) == b""
    other.sendall(b"on")
    assert other_vm.recv(2) == b"on"


@pytest.mark.parametrize("wanted", [["teleport"], ["mouse", 7], [["mouse"]], "mouse", {}, None, 1])
def test_rule_that_the_relay_does_not_know_ends_the_session(relay: Relay, wanted: object) -> None:
    """To go on would let all through; the broker cuts what the process leaves."""
    broker = relay.begin()
    viewer, near_viewer = socket.socketpair()
    vm, near_vm = socket.socketpair()
    with viewer, near_viewer, vm, near_vm:
        asked: Message = {"op": "channel", "channel": 1, "hold": False, "filter": wanted}
        broker.say(asked, near_viewer.fileno(), near_vm.fileno())
        assert broker.hear_all() == []
        assert "ProtocolError" in str(relay.log("fault")[0]["reason"])


def test_viewer_that_does_not_read_costs_no_memory(relay: Relay) -> None:
    """It sends a flood of what is dropped: each piece is owed a token, which it does not take."""
    broker = relay.begin()
    viewer, vm = channel(relay, broker)
    pid = relay.pid()
    flood = MOUSE_PIECE * 20_000
    viewer.sendall(flood)
    before = memory(pid)
    for _ in range(10):
        viewer.sendall(flood)
    assert memory(pid) < before + 512
    viewer.sendall(ATTACH)
    assert exactly(vm, len(ATTACH)) == ATTACH
    owed = 0
    while owed < 220_000:
        owed += sum(
            int.from_bytes(each.body, "little")
            for each in messages(exactly(viewer, 10))
            if each.kind == VM_TOKENS
        )
    assert owed == 220_000


def memory(pid: int) -> int:
    """The process's own pages, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private"))


def test_stalled_viewer_gets_every_byte_in_order_with_its_tokens_between(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = channel(relay, broker)
    # Each is sent alone, and 16 of them are what is read at once. So the relay stalls between two
    # messages, where the tokens may go.
    size = READ // 16
    bodies = [number.to_bytes(2, "big") * (size // 2 - 3) for number in range(1000)]
    left = deque(message(PING, body) for body in bodies)
    vm.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            vm.sendall(left[0])
            left.popleft()
    assert left
    vm.settimeout(10)
    viewer.sendall(MOUSE_PIECE * 3)
    time.sleep(0.2)  # for the relay to have read them; nothing is to be seen of that
    sender = threading.Thread(target=vm.sendall, args=[b"".join(left)])
    sender.start()
    received = exactly(viewer, len(bodies) * size + 10)
    sender.join(10)
    assert [each.body for each in messages(received) if each.kind == PING] == bodies
    owed = [each.body for each in messages(received) if each.kind == VM_TOKENS]
    assert owed == [u32(3)]


def test_half_close_and_hold_are_those_of_any_channel(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = channel(relay, broker, hold=True)
    vm.close()
    while broker.hear()["event"] != "lost":
        pass
    viewer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        viewer.recv(1)
    broker.say({"op": "release", "channel": 1})
    viewer.settimeout(10)
    assert viewer.recv(1) == b""
    viewer.close()
    assert closed(broker)["by"] == "vm"


def test_next_broker_hears_which_channels_are_filtered(relay: Relay) -> None:
    first = relay.begin()
    viewer, vm = channel(relay, first)
    relay.channel(first, 2)
    first.close()
    second = relay.again()
    hello, kept = second.hear(), second.hear()
    assert hello["filters"] is True
    assert kept["filters"] == {"1": ["clipboard-from-vm"]}
    channels = kept["channels"]
    assert isinstance(channels, dict)
    assert channels.keys() == {"1", "2"}
    viewer.sendall(MOUSE_PIECE + ATTACH)
    assert exactly(vm, len(ATTACH)) == ATTACH


def test_process_with_a_filter_ends_as_any(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = channel(relay, broker)
    pid = relay.pid()
    broker.say({"op": "end"})
    assert viewer.recv(1) == vm.recv(1) == b""
    wait_until(lambda: not alive(pid), "the process to end")
