"""Records of sessions if the broker dies at a bad moment, or if records cannot be written."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, wait_until


@contextlib.contextmanager
def records_unwritable(server: Server) -> Iterator[None]:
    """Make writing a record fail, as if the file system were full."""
    records, away = server.directory / "sessions", server.directory / "away"
    records.rename(away)
    try:
        yield
    finally:
        away.rename(records)


def test_session_that_cannot_be_recorded_is_refused(server: Server) -> None:
    server.vm("vm1")
    assert server.gate("whoami").exit_code() == 0  # opens what stays open after the first look-up
    before = server.descriptors(server.broker)
    with records_unwritable(server):
        for _ in range(3):
            refused = server.gate("open --json vm1").says()
            assert (refused["event"], refused["code"]) == ("refused", 70)
            assert refused["reason"] == "the server cannot note the session"
    assert "no such file" in str(server.audit("fault")[0]["reason"])
    assert [line["decision"] for line in server.audit("open")] == ["deny"] * 3
    wait_until(lambda: server.descriptors(server.broker) == before, "its descriptors to be closed")
    wait_until(lambda: not server.relay_processes(), "their processes to end")
    server.open("vm1")


def test_channel_that_cannot_be_recorded_is_refused_and_leaves_no_descriptor(
    server: Server,
) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    before = server.descriptors(server.broker)
    with records_unwritable(server):
        viewer = server.connect()
        viewer.sendall(link())
        assert viewer.recv(4) == b"REDQ"
        (line,) = server.audit("channel")
        assert (line["decision"], line["reason"]) == ("deny", "the server cannot note the session")
        vm.accept().close()
    viewer.close()
    wait_until(lambda: server.descriptors(server.broker) == before, "the VM's end to be closed")
    server.channel(vm)


def test_session_goes_on_if_the_end_of_a_channel_cannot_be_recorded(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    server.channel(vm)
    side, far = server.channel(vm, DISPLAY)
    with records_unwritable(server):
        side.close()
        far.close()
        (end,) = wait_until(lambda: server.audit("channel-end"), "its end")
        assert end["type"] == "display"
    server.channel(vm, DISPLAY)
    assert gate.process.poll() is None


def test_session_goes_on_if_the_restart_of_its_vm_cannot_be_recorded(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    with records_unwritable(server):
        vm.switch_off()
        far.close()
        while (said := gate.says())["event"] == "waiting":
            if said["reason"]:
                server.vm("vm1")
        assert said["event"] == "ready"


def test_session_is_cut_even_if_its_end_cannot_be_recorded(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    with records_unwritable(server):
        server.write_map("nobody-else", "vm1")
        assert gate.says()["event"] == "end"
        assert far.recv(1) == b""
        wait_until(lambda: server.audit("session-end"), "the end")


DIE_AT_THE_END_OF_A_SESSION = """
import os
async def die(self, session, hearing):
    os._exit(9)
lifecycle.Lifecycle._end_relay = die
"""


def use_broker_that_dies_at_the_end_of_a_session(server: Server) -> None:
    """Start a broker that dies once it has ended a session, before the relay is told."""
    server.kill_broker()
    server.patch = DIE_AT_THE_END_OF_A_SESSION
    server.start()
    server.patch = ""


def test_seat_stays_taken_over_if_the_broker_is_killed(server: Server) -> None:
    vm = server.vm("vm1")
    use_broker_that_dies_at_the_end_of_a_session(server)
    fake_gate = server.speaker()
    server.at_the_end(fake_gate.close)
    fake_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = fake_gate.receive()["session"]
    _, far = server.through(server.connect(), vm)
    other = server.other()
    assert other.gate("open --json --take-over vm1")["event"] == "ready"
    assert server.broker.wait(10) == 9
    server.start()
    with fake_gate.connect_again() as resuming:
        resuming.send({"v": 1, "op": "resume", "session": session})
        assert resuming.receive()["event"] == "refused"
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("session-end"), "its end")
    assert end["session"] == session
    assert str(end["reason"]).startswith("your seat at 'vm1' was taken over by")
    assert [line["session"] for line in server.audit("channel-end")] == [session]
    wait_until(lambda: len(server.relay_processes()) == 1, "its process to end")


def test_session_stays_kicked_if_the_broker_is_killed(server: Server) -> None:
    server.vm("vm1")
    use_broker_that_dies_at_the_end_of_a_session(server)
    fake_gate = server.speaker()
    server.at_the_end(fake_gate.close)
    fake_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = fake_gate.receive()["session"]
    with server.speaker() as admin:
        admin.send({"v": 1, "op": "kick", "session": session})
        assert server.broker.wait(10) == 9
    server.start()
    with fake_gate.connect_again() as resuming:
        resuming.send({"v": 1, "op": "resume", "session": session})
        assert resuming.receive()["event"] == "refused"
    (end,) = server.audit("session-end")
    assert "ended by the admin" in str(end["reason"])


@pytest.mark.parametrize("part", ["follow_vm", "Review.follow"])
def test_session_ends_if_a_task_that_watches_it_fails(server: Server, part: str) -> None:
    """Otherwise nothing would end the session when its right or its VM does."""
    server.kill_broker()
    server.patch = f"async def fail(*_):\n    raise KeyError('x')\nlifecycle.{part} = fail"
    server.start()
    server.vm("vm1")
    gate = server.open("vm1")
    assert gate.says()["reason"] == "the server failed"
    (fault,) = server.audit("fault")
    assert fault["reason"] == "KeyError('x')"
    wait_until(lambda: server.audit("session-end"), "the end")
