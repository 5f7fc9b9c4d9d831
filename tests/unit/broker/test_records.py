"""What is on record, whenever the broker dies, and what happens where nothing can be written."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.unit.broker.server import DISPLAY, Server, link, wait_until


@contextlib.contextmanager
def nothing_recorded(server: Server) -> Iterator[None]:
    """As where the run directory's file system is full."""
    records, away = server.directory / "sessions", server.directory / "away"
    records.rename(away)
    try:
        yield
    finally:
        away.rename(records)


def test_session_that_cannot_be_recorded_is_refused(server: Server) -> None:
    server.vm("vm1")
    assert server.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = server.descriptors(server.broker)
    with nothing_recorded(server):
        for _ in range(3):
            refused = server.gate("open --json vm1").says()
            assert (refused["event"], refused["code"]) == ("refused", 70)
            assert refused["reason"] == "the server cannot note the session"
    assert "no such file" in str(server.audit("fault")[0]["reason"])
    assert [line["decision"] for line in server.audit("open")] == ["deny"] * 3
    wait_until(
        lambda: server.descriptors(server.broker) == before, "what it had opened to be closed"
    )
    wait_until(lambda: not server.relay_processes(), "their processes to go")
    server.open("vm1")


def test_channel_that_cannot_be_recorded_is_refused_and_leaves_nothing(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    before = server.descriptors(server.broker)
    with nothing_recorded(server):
        viewer = server.connect()
        viewer.sendall(link())
        assert viewer.recv(4) == b"REDQ"
        (line,) = server.audit("channel")
        assert (line["decision"], line["reason"]) == ("deny", "the server cannot note the session")
        vm.accept().close()
    viewer.close()
    wait_until(lambda: server.descriptors(server.broker) == before, "the VM's end to be closed")
    server.channel(vm)


def test_end_of_a_channel_that_cannot_be_recorded_ends_no_session(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    server.channel(vm)
    side, far = server.channel(vm, DISPLAY)
    with nothing_recorded(server):
        side.close()
        far.close()
        (end,) = wait_until(lambda: server.audit("channel-end"), "its end")
        assert end["type"] == "display"
    server.channel(vm, DISPLAY)
    assert gate.process.poll() is None


def test_vm_that_comes_back_unrecorded_is_back(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    with nothing_recorded(server):
        vm.switch_off()
        far.close()
        while (said := gate.says())["event"] == "waiting":
            if said["reason"]:
                server.vm("vm1")
        assert said["event"] == "ready"


def test_session_is_cut_where_its_end_cannot_be_recorded(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    with nothing_recorded(server):
        server.write_map("nobody-else", "vm1")
        assert gate.says()["event"] == "end"
        assert far.recv(1) == b""
        wait_until(lambda: server.audit("session-end"), "the end")


DIES_WITH_THE_NEXT_SESSION_S_END = """
import os
async def die(self, session, hearing):
    os._exit(9)
lifecycle.Lifecycle._end_relay = die
"""


def die_at_an_end(server: Server) -> None:
    """The broker of now on is killed after it has ended a session, and before anybody obeyed."""
    server.kill_broker()
    server.patch = DIES_WITH_THE_NEXT_SESSION_S_END
    server.start()
    server.patch = ""


def test_seat_that_was_taken_over_is_not_given_back_by_a_killed_broker(server: Server) -> None:
    vm = server.vm("vm1")
    die_at_an_end(server)
    own_gate = server.speaker()
    server.at_the_end(own_gate.close)
    own_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = own_gate.receive()["session"]
    _, far = server.through(server.connect(), vm)
    other = server.other()
    assert other.gate("open --json --take-over vm1")["event"] == "ready"
    assert server.broker.wait(10) == 9
    server.start()
    with own_gate.again() as again:
        again.send({"v": 1, "op": "resume", "session": session})
        assert again.receive()["event"] == "refused"
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("session-end"), "its end")
    assert end["session"] == session
    assert str(end["reason"]).startswith("your seat at 'vm1' was taken over by")
    assert [line["session"] for line in server.audit("channel-end")] == [session]
    wait_until(lambda: len(server.relay_processes()) == 1, "its process to go")


def test_kick_holds_over_a_killed_broker(server: Server) -> None:
    server.vm("vm1")
    die_at_an_end(server)
    own_gate = server.speaker()
    server.at_the_end(own_gate.close)
    own_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = own_gate.receive()["session"]
    with server.speaker() as admin:
        admin.send({"v": 1, "op": "kick", "session": session})
        assert server.broker.wait(10) == 9
    server.start()
    with own_gate.again() as again:
        again.send({"v": 1, "op": "resume", "session": session})
        assert again.receive()["event"] == "refused"
    (end,) = server.audit("session-end")
    assert "ended by the admin" in str(end["reason"])


@pytest.mark.parametrize("part", ["follow_vm", "Review.follow"])
def test_session_that_is_no_longer_watched_ends(server: Server, part: str) -> None:
    """What watches it has failed: it goes no further, rather than on for ever."""
    server.kill_broker()
    server.patch = f"async def fail(*_):\n    raise KeyError('x')\nlifecycle.{part} = fail"
    server.start()
    server.vm("vm1")
    gate = server.open("vm1")
    assert gate.says()["reason"] == "the server failed"
    (fault,) = server.audit("fault")
    assert fault["reason"] == "KeyError('x')"
    wait_until(lambda: server.audit("session-end"), "the end")
