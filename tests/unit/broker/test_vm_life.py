"""A VM that is off, that stops, and that comes back, while somebody wants it."""

import os
import select
import signal

import pytest

from tests.unit.broker.house import DISPLAY, House, link, wait_until


def test_vm_that_is_off_is_refused_with_a_hint_that_it_can_be_waited_for(house: House) -> None:
    refused = house.gate("open --json vm1").says()
    assert (refused["code"], refused["reason"]) == (69, "'vm1' is not running")
    assert refused["hint"] == "spice-connect --wait waits for it"


def test_waiting_for_a_vm_until_it_runs(house: House) -> None:
    gate = house.gate("open --json --wait vm1")
    waiting = gate.says()
    assert waiting["event"] == "waiting"
    assert waiting["reason"] == "'vm1' is not running; waiting for it to start"
    vm = house.vm("vm1")
    assert gate.says()["event"] == "ready"
    house.channel(vm)


def test_who_waits_holds_no_seat(house: House) -> None:
    house.gate("open --json --wait vm1").says()
    with_seat = house.other()
    assert with_seat.gate("open --json --wait vm1")["event"] == "waiting"


def test_two_who_wait_for_one_vm_do_not_both_get_it(house: House) -> None:
    first = house.gate("open --json --wait vm1")
    first.says()
    other = house.other()
    assert other.gate("open --json --wait vm1")["event"] == "waiting"
    house.vm("vm1")
    wait_until(lambda: len(house.audit("open")) == 2, "both to be decided")
    assert sorted(str(line["decision"]) for line in house.audit("open")) == ["allow", "deny"]


def test_right_that_ends_while_waiting_ends_the_waiting(house: House) -> None:
    gate = house.gate("open --json --wait vm1")
    gate.says()
    house.write_map("nobody-else", "vm1")
    refused = gate.says()
    assert (refused["event"], refused["code"]) == ("refused", 77)
    assert gate.exit_code() == 77


def test_who_leaves_while_waiting_is_gone(house: House) -> None:
    gate = house.gate("open --json --wait vm1")
    gate.says()
    before = house.descriptors(house.broker)
    gate.process.terminate()
    (line,) = wait_until(lambda: house.audit("open"), "the log line")
    assert (line["decision"], line["reason"]) == ("deny", "the client left while it waited")
    wait_until(lambda: house.descriptors(house.broker) < before, "its connection to be closed")


def test_broker_that_dies_while_somebody_waits(house: House) -> None:
    """There is no session yet, and nothing to hand over."""
    gate = house.gate("open --json --wait vm1")
    gate.says()
    house.kill_broker()
    assert gate.says()["reason"] == "the server's broker went away"
    assert gate.exit_code() == 70


def test_word_spoken_while_waiting_breaks_the_protocol(house: House) -> None:
    with house.speaker() as gate:
        gate.send({"v": 1, "op": "open", "vm": "vm1", "wait": True})
        assert gate.receive()["event"] == "waiting"
        gate.send({"op": "usage", "channels": {}})
        assert "nothing to say" in str(gate.receive()["reason"])


def test_session_is_kept_through_a_restart_of_the_vm(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    vm.switch_off()
    far.close()
    assert gate.says() == {"event": "waiting", "reason": "", "hint": ""}
    stopped = gate.says()
    assert (stopped["event"], stopped["reason"]) == (
        "waiting",
        "'vm1' has stopped; waiting 60 s for its restart",
    )
    again = house.vm("vm1")
    ready = gate.says()
    assert (ready["event"], ready["session"]) == ("ready", house.audit("open")[0]["session"])
    viewer, far = house.channel(again)
    viewer.sendall(b"x")
    assert far.recv(1) == b"x"
    assert [line["state"] for line in house.audit("vm")] == ["off", "back"]


def test_client_hears_of_the_loss_before_its_viewer_sees_it(house: House) -> None:
    """Whatever holds the broker up, for some seconds."""
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    viewer, far = house.channel(vm)
    house.broker.send_signal(signal.SIGSTOP)
    far.close()
    viewer.settimeout(1)
    with pytest.raises(TimeoutError):
        viewer.recv(1)
    house.broker.send_signal(signal.SIGCONT)
    viewer.settimeout(10)
    assert viewer.recv(1) == b""
    assert gate.process.stdout
    assert select.select([gate.process.stdout], [], [], 0)[0], "nothing is said by now"
    assert gate.says() == {"event": "waiting", "reason": "", "hint": ""}


def test_viewer_is_not_held_for_ever_where_no_broker_comes(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1", "--keep")
    viewer, far = house.channel(vm)
    house.kill_broker()
    far.close()
    viewer.settimeout(20)
    assert viewer.recv(1) == b""


def test_gate_that_says_nothing_does_not_hold_the_viewer(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    viewer, far = house.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    far.close()
    assert viewer.recv(1) == b""


def test_loss_of_another_channel_is_no_loss_of_the_vm(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    house.channel(vm)
    viewer, far = house.channel(vm, DISPLAY)
    far.close()
    assert viewer.recv(1) == b""
    viewer.close()
    wait_until(lambda: house.audit("channel-end"), "its end")
    assert gate.process.stdout
    assert not select.select([gate.process.stdout], [], [], 0)[0]


def test_quick_restart_of_the_vm_is_one_too(house: House) -> None:
    """It was never seen to be off: its socket is another one."""
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    vm.switch_off()
    again = house.vm("vm1")
    far.close()
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "ready"
    house.channel(again)


def test_seat_is_kept_through_a_restart_of_the_vm(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    vm.switch_off()
    far.close()
    gate.says()
    gate.says()
    house.vm("vm1")
    refused = house.other().gate("open --json vm1")
    assert (refused["event"], refused["code"]) == ("refused", 75)


def test_vm_that_lets_its_viewer_go_and_runs_on(house: House) -> None:
    """As QEMU does for another viewer, that came past us: coming again would be a fight."""
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    far.close()
    assert gate.says()["event"] == "waiting"
    end = gate.says()
    assert (end["event"], end["code"], end["reason"]) == (
        "end",
        75,
        "'vm1' closed the connection",
    )


def test_without_keep_a_vm_that_stops_ends_the_session(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    vm.switch_off()
    far.close()
    end = gate.says()
    assert (end["event"], end["code"], end["reason"]) == ("end", 69, "'vm1' has stopped")


def test_viewer_that_finds_the_vm_off_does_not_end_a_kept_session(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    vm.switch_off()
    viewer = house.connect()
    viewer.sendall(link())
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "waiting"
    house.vm("vm1")
    assert gate.says()["event"] == "ready"


def test_vm_that_restarts_while_there_is_no_broker(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    house.kill_broker()
    vm.switch_off()
    far.close()
    again = house.vm("vm1")
    house.start()
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "ready"
    house.channel(again)


@pytest.mark.parametrize("take", ["--take-over", "--replace {id}"])
def test_coming_again_while_the_server_thinks_one_is_still_there(house: House, take: str) -> None:
    """A client whose network dropped: its old connection looks alive for a minute."""
    vm = house.vm("vm1")
    first = house.open("vm1")
    _, far = house.channel(vm)
    os.kill(first.process.pid, signal.SIGSTOP)
    session = str(house.audit("open")[0]["session"])
    other = house.other()
    ready = other.gate(f"open --json {take.format(id=session)} vm1")
    assert ready["event"] == "ready"
    assert ready["session"] != session
    assert far.recv(1) == b""


def test_replacing_somebody_elses_session_gains_nothing(house: House) -> None:
    """Even with its id, which is no secret."""
    house.use_map(
        f"delegates: [{os.getuid()}]\n"
        "vms: {vm1: {socket: '{dir}/vm1', allow: [{user: [anne, bob]}]}}\n"
    )
    house.vm("vm1")
    with house.speaker() as anne:
        anne.send({"v": 1, "op": "open", "vm": "vm1", "as": "anne"})
        session = anne.receive()["session"]
        refused = house.other().say(
            {"v": 1, "op": "open", "vm": "vm1", "as": "bob", "replace": session}
        )
        assert (refused["event"], refused["code"]) == ("refused", 75)
        assert str(refused["reason"]).startswith("'vm1' is in use by anne since")
        anne.send({"op": "said"})
        assert house.audit("session-end") == []
