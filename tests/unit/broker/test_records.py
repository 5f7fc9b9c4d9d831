"""What is on record, whenever the broker dies, and what happens where nothing can be written."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.unit.broker.house import DISPLAY, House, link, wait_until


@contextlib.contextmanager
def nothing_recorded(house: House) -> Iterator[None]:
    """As where the run directory's file system is full."""
    records, away = house.directory / "sessions", house.directory / "away"
    records.rename(away)
    try:
        yield
    finally:
        away.rename(records)


def test_session_that_cannot_be_recorded_is_refused(house: House) -> None:
    house.vm("vm1")
    assert house.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = house.descriptors(house.broker)
    with nothing_recorded(house):
        for _ in range(3):
            refused = house.gate("open --json vm1").says()
            assert (refused["event"], refused["code"]) == ("refused", 70)
            assert refused["reason"] == "the server cannot note the session"
    assert "no such file" in str(house.audit("fault")[0]["reason"])
    assert [line["decision"] for line in house.audit("open")] == ["deny"] * 3
    wait_until(lambda: house.descriptors(house.broker) == before, "what it had opened to be closed")
    wait_until(lambda: not house.relay_processes(), "their processes to go")
    house.open("vm1")


def test_channel_that_cannot_be_recorded_is_refused_and_leaves_nothing(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    before = house.descriptors(house.broker)
    with nothing_recorded(house):
        viewer = house.connect()
        viewer.sendall(link())
        assert viewer.recv(4) == b"REDQ"
        (line,) = house.audit("channel")
        assert (line["decision"], line["reason"]) == ("deny", "the server cannot note the session")
        vm.accept().close()
    viewer.close()
    wait_until(lambda: house.descriptors(house.broker) == before, "the VM's end to be closed")
    house.channel(vm)


def test_end_of_a_channel_that_cannot_be_recorded_ends_no_session(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    house.channel(vm)
    side, far = house.channel(vm, DISPLAY)
    with nothing_recorded(house):
        side.close()
        far.close()
        (end,) = wait_until(lambda: house.audit("channel-end"), "its end")
        assert end["type"] == "display"
    house.channel(vm, DISPLAY)
    assert gate.process.poll() is None


def test_vm_that_comes_back_unrecorded_is_back(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    with nothing_recorded(house):
        vm.switch_off()
        far.close()
        while (said := gate.says())["event"] == "waiting":
            if said["reason"]:
                house.vm("vm1")
        assert said["event"] == "ready"


def test_session_is_cut_where_its_end_cannot_be_recorded(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    with nothing_recorded(house):
        house.write_map("nobody-else", "vm1")
        assert gate.says()["event"] == "end"
        assert far.recv(1) == b""
        wait_until(lambda: house.audit("session-end"), "the end")


DIES_WITH_THE_NEXT_SESSION_S_END = """
import os
async def die(self, session, hearing):
    os._exit(9)
lifecycle.Lifecycle._end_relay = die
"""


def die_at_an_end(house: House) -> None:
    """The broker of now on is killed after it has ended a session, and before anybody obeyed."""
    house.kill_broker()
    house.patch = DIES_WITH_THE_NEXT_SESSION_S_END
    house.start()
    house.patch = ""


def test_seat_that_was_taken_over_is_not_given_back_by_a_killed_broker(house: House) -> None:
    vm = house.vm("vm1")
    die_at_an_end(house)
    own_gate = house.speaker()
    house.at_the_end(own_gate.close)
    own_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = own_gate.receive()["session"]
    far = house.reach(house.connect(), vm)
    other = house.other()
    assert other.gate("open --json --take-over vm1")["event"] == "ready"
    assert house.broker.wait(10) == 9
    house.start()
    with own_gate.again() as again:
        again.send({"v": 1, "op": "resume", "session": session})
        assert again.receive()["event"] == "refused"
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: house.audit("session-end"), "its end")
    assert end["session"] == session
    assert str(end["reason"]).startswith("your seat at 'vm1' was taken over by")
    assert [line["session"] for line in house.audit("channel-end")] == [session]
    wait_until(lambda: len(house.relay_processes()) == 1, "its process to go")


def test_kick_holds_over_a_killed_broker(house: House) -> None:
    house.vm("vm1")
    die_at_an_end(house)
    own_gate = house.speaker()
    house.at_the_end(own_gate.close)
    own_gate.send({"v": 1, "op": "open", "vm": "vm1"})
    session = own_gate.receive()["session"]
    with house.speaker() as admin:
        admin.send({"v": 1, "op": "kick", "session": session})
        assert house.broker.wait(10) == 9
    house.start()
    with own_gate.again() as again:
        again.send({"v": 1, "op": "resume", "session": session})
        assert again.receive()["event"] == "refused"
    (end,) = house.audit("session-end")
    assert "ended by the admin" in str(end["reason"])


@pytest.mark.parametrize("part", ["follow_vm", "Review.follow"])
def test_session_that_is_no_longer_watched_ends(house: House, part: str) -> None:
    """What watches it has failed: it goes no further, rather than on for ever."""
    house.kill_broker()
    house.patch = f"async def fail(*_):\n    raise KeyError('x')\nlifecycle.{part} = fail"
    house.start()
    house.vm("vm1")
    gate = house.open("vm1")
    assert gate.says()["reason"] == "the server failed"
    (fault,) = house.audit("fault")
    assert fault["reason"] == "KeyError('x')"
    wait_until(lambda: house.audit("session-end"), "the end")
