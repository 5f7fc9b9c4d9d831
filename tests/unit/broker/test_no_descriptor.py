"""A gate of one's own that takes every message gets no descriptor, on any path."""

import json
import select
import socket

from tests.unit.broker.server import DISPLAY, Server, link, wait_until


class Taker:
    """Below the SSH connection's process, as a gate is. It takes all that comes with a packet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.events: list[str] = []
        self.descriptors: list[int] = []
        self.connect()

    def connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.at_the_end(self._sock.close)
        self._sock.connect(str(self._server.directory / "control.sock"))

    def say(self, **message: object) -> None:
        self._sock.send(json.dumps({"v": 1, **message}).encode())

    def take(self, seconds: float = 10) -> dict[str, object]:
        """The next message; empty where none comes in time, or the broker is gone."""
        if not select.select([self._sock], [], [], seconds)[0]:
            return {}
        packet, fds, flags, _ = socket.recv_fds(self._sock, 65536, 250)
        self.descriptors += fds
        assert not flags & socket.MSG_CTRUNC
        message: dict[str, object] = json.loads(packet) if packet else {}
        self.events.append(str(message.get("event")))
        return message


def test_no_descriptor_in_a_gate(server: Server) -> None:
    """open, channels, a lost VM and its restart, a restart of the broker, the end."""
    vm = server.vm("vm1")
    taker = Taker(server)
    taker.say(op="open", vm="vm1", keep=True)
    session = taker.take()["session"]
    ends = [*server.channel(vm), *server.channel(vm, DISPLAY)]
    assert taker.take(0.3) == {}, "nothing is said of channels"
    server.kill_broker()
    server.start()
    assert taker.take() == {}, "the end of the old broker"
    taker.connect()
    taker.say(op="resume", session=session)
    assert taker.take()["event"] == "resumed"
    ends += server.channel(vm, DISPLAY)
    vm.switch_off()
    for end in ends[1::2]:
        end.close()
    assert taker.take() == {"event": "waiting", "reason": "", "hint": "", "ack": True}
    assert taker.take()["event"] == "waiting"
    again = server.vm("vm1")
    assert taker.take()["event"] == "ready"
    ends += server.channel(again)
    server.write_map("nobody-else", "vm1")
    assert taker.take()["event"] == "end"
    assert taker.descriptors == []
    assert taker.events == ["ready", "None", "resumed", "waiting", "waiting", "ready", "end"]


def test_refused_channel_brings_none_either(server: Server) -> None:
    server.vm("vm1")
    taker = Taker(server)
    taker.say(op="open", vm="vm1")
    taker.take()
    viewer = server.connect()
    viewer.sendall(link(DISPLAY, 7))
    wait_until(lambda: server.audit("channel"), "the refusal")
    assert taker.take(0.3) == {}
    assert taker.descriptors == []
