"""No message of the broker brings a descriptor, even to a program that would accept one."""

import json
import select
import socket

from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, wait_until


class Receiver:
    """A program in the gate's place that accepts every descriptor that comes with a packet."""

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

    def receive(self, seconds: float = 10) -> dict[str, object]:
        """The next message; empty if none comes in time or the broker is gone."""
        if not select.select([self._sock], [], [], seconds)[0]:
            return {}
        packet, fds, flags, _ = socket.recv_fds(self._sock, 65536, 250)
        self.descriptors += fds
        assert not flags & socket.MSG_CTRUNC
        message: dict[str, object] = json.loads(packet) if packet else {}
        self.events.append(str(message.get("event")))
        return message


def test_gate_receives_no_descriptor(server: Server) -> None:
    """Through open, channels, a restart of the broker, a restart of the VM, and the end."""
    vm = server.vm("vm1")
    receiver = Receiver(server)
    receiver.say(op="open", vm="vm1", keep=True)
    session = receiver.receive()["session"]
    ends = [*server.channel(vm), *server.channel(vm, DISPLAY)]
    assert receiver.receive() == {"event": "attached"}
    assert receiver.receive(0.3) == {}, "the gate was told about more than the first channel"
    server.kill_broker()
    server.start()
    assert receiver.receive() == {}, "the old broker has not closed the connection"
    receiver.connect()
    receiver.say(op="resume", session=session)
    assert receiver.receive()["event"] == "resumed"
    ends += server.channel(vm, DISPLAY)
    vm.switch_off()
    for end in ends[1::2]:
        end.close()
    assert receiver.receive() == {"event": "waiting", "reason": "", "hint": "", "ack": True}
    assert receiver.receive()["event"] == "waiting"
    again = server.vm("vm1")
    assert receiver.receive()["event"] == "ready"
    ends += server.channel(again)
    server.write_map("nobody-else", "vm1")
    assert receiver.receive()["event"] == "end"
    assert receiver.descriptors == []
    events = ["ready", "attached", "None", "resumed", "waiting", "waiting", "ready", "end"]
    assert receiver.events == events


def test_gate_receives_no_descriptor_of_a_refused_channel(server: Server) -> None:
    server.vm("vm1")
    receiver = Receiver(server)
    receiver.say(op="open", vm="vm1")
    receiver.receive()
    viewer = server.connect()
    viewer.sendall(link(DISPLAY, 7))
    wait_until(lambda: server.audit("channel"), "the refusal")
    assert receiver.receive(0.3) == {}
    assert receiver.descriptors == []
