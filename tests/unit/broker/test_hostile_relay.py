"""A session's relay process that its viewer has taken over, so that it may send and do anything.

Only its own session ends. The broker goes on with the others, and can still cut this one.
"""

import contextlib
import json

import pytest

from tests.unit.broker.server import Server, running_server, wait_until
from tests.unit.relay.conftest import alive

LYING_RELAY = """
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import encode
from spicetunnel.relay import session
honest = session.Session._introduce
def say(broker, message, *fds):
    fdpass.send(broker, encode(message), fds)
def begin(self, broker, channels):
    say(broker, {"event": "begun", "v": 1, "session": self._id, "pid": 1, "channels": channels})
def introduce(self, broker):
    if not self._channels.by_number:
        return honest(self, broker)
    broker.setblocking(True)
    vm = self._channels.by_number[1].vm.fileno()
    lie(self, broker, vm)
session.Session._introduce = introduce
"""


def kept(counts: str, channel: str = '"1"', fd: str = "vm") -> str:
    return f"""
    begin(self, broker, 1)
    packet = b'{{"event":"kept","channels":{{{channel}:{counts}}}}}'
    fdpass.send(broker, packet, ({fd},))
"""


ENDLESS = """
    begin(self, broker, 2)
    while True:
        say(broker, {"event": "kept", "channels": {"1": [0, 0, False]}}, vm)
"""
MANY_DESCRIPTORS = """
    begin(self, broker, 1)
    fds = (vm, *[self._poller.fileno()] * 200)
    fdpass.send(broker, b'{"event":"kept","channels":{"1":[0,0,false]}}', fds)
"""
ENDLESS_CHANNELS = """
    begin(self, broker, 2**60)
    number = 1
    while True:
        say(broker, {"event": "kept", "channels": {str(number): [0, 0, False]}}, vm)
        number += 1
"""

LIES = {
    "infinite-count": kept("[1e999,0,false]"),
    "not-a-number": kept("[NaN,0,false]"),
    "huge-count": kept(f"[{10**4000},0,false]"),
    "negative-count": kept("[-1,0,false]"),
    "text-as-count": kept('["1",0,false]'),
    "text-as-flag": kept('[1,0,"no"]'),
    "malformed-channel": kept("[0,0,false]", channel='" 1_0 "'),
    "filters-that-are-none": kept('[0,0,false]},"filters":{"1":5'),
    "filters-in-no-object": kept('[0,0,false]},"filters":["1"],"more":{'),
    "not-a-socket": kept("[0,0,false]", fd="self._poller.fileno()"),
    "many-descriptors": MANY_DESCRIPTORS,
    "endless": ENDLESS,
    "endless-channels": ENDLESS_CHANNELS,
    "no-channels": "\n    begin(self, broker, 2**62)\n",
    "silent": "\n    pass\n",
}


def hostile(lie: str) -> str:
    return f"{LYING_RELAY}\ndef lie(self, broker, vm):{lie}"


@pytest.mark.parametrize("lie", LIES)
def test_lie_to_the_next_broker_ends_only_that_session(lie: str) -> None:
    with running_server(relay_patch=hostile(LIES[lie])) as server:
        vm = server.vm("vm1")
        server.vm("vm2")
        server.open("vm1")
        _, far = server.channel(vm)
        other = server.other()
        assert other.gate("open --json vm2")["event"] == "ready"
        (first, second) = [line["session"] for line in server.audit("open")]
        server.kill_broker()
        server.start()
        assert far.recv(1) == b""
        (end,) = wait_until(lambda: server.audit("session-end"), "the end")
        assert end["session"] == first
        assert [line["session"] for line in server.audit("resume")] == [second]
        wait_until(lambda: len(server.relay_processes()) == 1, "its process to end")
        wait_until(
            lambda: server.descriptors(server.broker) < 25, "the relay's descriptors to be closed"
        )


@pytest.mark.parametrize("lie", ["endless", "many-descriptors"])
def test_lying_process_of_a_session_without_a_record_is_ended(lie: str) -> None:
    """As an honest one is: test_resume.py."""
    with running_server(relay_patch=hostile(LIES[lie])) as server:
        vm = server.vm("vm1")
        server.open("vm1")
        _, far = server.channel(vm)
        server.kill_broker()
        (record,) = (server.directory / "sessions").iterdir()
        record.unlink()
        server.start()
        assert far.recv(1) == b""
        wait_until(
            lambda: not list((server.relay_dir / "sessions").iterdir()), "its socket to be removed"
        )
        wait_until(
            lambda: server.descriptors(server.broker) < 25, "the relay's descriptors to be closed"
        )


#: Ignores `end`, `release` and the next broker, as its listener is closed. Still moves the bytes of
#: its channels.
UNRESPONSIVE = """
from spicetunnel.relay import session
obey = session.Session._obey
def hear(self, message, fds):
    if message["op"] == "channel":
        obey(self, message, fds)
        self._poller.unregister(self._listener)
        self._listener.shutdown(2)
session.Session._obey = hear
session.Session._look_at_the_clock = lambda *_: None
"""


def server_with_unresponsive_relay() -> contextlib.AbstractContextManager[Server]:
    return running_server(relay_patch=UNRESPONSIVE)


def process_of(server: Server) -> int:
    """The pid of the session's process, from its record: its socket has no listener."""
    (record,) = (server.directory / "sessions").iterdir()
    pid = json.loads(record.read_bytes())["relay_pid"]
    assert isinstance(pid, int)
    return pid


def test_process_that_ignores_its_end_is_killed() -> None:
    with server_with_unresponsive_relay() as server:
        vm = server.vm("vm1")
        gate = server.open("vm1")
        _, far = server.channel(vm)
        pid = process_of(server)
        gate.process.terminate()
        assert far.recv(1) == b""
        (end,) = wait_until(lambda: server.audit("session-end"), "the end")
        assert end["reason"] == "the client left"
        wait_until(lambda: not alive(pid), "its process to end")


@pytest.mark.parametrize("connection", ["alive", "gone"])
def test_process_that_ignores_the_next_broker_is_killed(connection: str) -> None:
    with server_with_unresponsive_relay() as server:
        vm = server.vm("vm1")
        other = server.other()
        assert other.gate("open --json vm1")["event"] == "ready"
        viewer, far = server.through(other.connect(), vm)
        pid = process_of(server)
        server.kill_broker()
        if connection == "gone":
            other.kill()
        viewer.sendall(b"x")
        assert far.recv(1) == b"x"
        server.start()
        assert far.recv(1) == b""
        wait_until(lambda: not alive(pid), "its process to end")
        assert len(server.audit("session-end")) == 1


@pytest.mark.parametrize("pid", ["2**40", "'1'", "None", "2**70"])
def test_process_that_reports_a_wrong_pid_is_refused_and_leaves_no_socket(pid: str) -> None:
    lie = f"""
from spicetunnel.relay import session
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import encode
def introduce(self, broker):
    hello = {{"event": "begun", "v": 1, "session": self._id, "pid": {pid}, "channels": 0}}
    fdpass.send(broker, encode(hello))
session.Session._introduce = introduce
"""
    with running_server(relay_patch=lie) as server:
        server.vm("vm1")
        assert server.gate("open --json vm1").says()["event"] == "refused"
        assert server.gate("open --json vm1").says()["event"] == "refused"
        assert not list((server.relay_dir / "sessions").iterdir())
        assert not server.audit("fault")
