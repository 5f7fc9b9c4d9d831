"""A VM that is off, stops or restarts while somebody waits for it or uses it."""

import os
import select
import signal
import time

import pytest

from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, wait_until


def test_refusal_while_the_vm_is_off_hints_at_waiting(server: Server) -> None:
    gate = server.gate("open --json vm1")
    refused = gate.says()
    assert (refused["code"], refused["reason"]) == (69, "'vm1' is not running")
    assert refused["hint"] == "spice-connect --wait waits for it"
    assert gate.exit_code() == 69


def test_waiting_open_becomes_ready_when_the_vm_starts(server: Server) -> None:
    gate = server.gate("open --json --wait vm1")
    waiting = gate.says()
    assert waiting["event"] == "waiting"
    assert waiting["reason"] == "'vm1' is not running; waiting for it to start"
    vm = server.vm("vm1")
    assert gate.says()["event"] == "ready"
    server.channel(vm)


def test_waiting_open_holds_no_seat(server: Server) -> None:
    """The first person waits. The VM starts, and the second opens it before the first looks."""
    server.restart_patched("from spicetunnel.broker import waiting; waiting.WAIT_POLL = 1000")
    assert server.gate("open --json --wait vm1").says()["event"] == "waiting"
    vm = server.vm("vm1")
    other = server.other()
    assert other.gate("open --json vm1")["event"] == "ready"
    server.through(other.connect(), vm)


def test_only_one_of_two_waiting_opens_gets_the_vm_and_the_other_waits_on(server: Server) -> None:
    first = server.gate("open --json --wait vm1")
    first.says()
    other = server.other()
    assert other.gate("open --json --wait vm1")["event"] == "waiting"
    server.vm("vm1")
    wait_until(lambda: server.audit("open"), "one to be let in")
    time.sleep(1.5)  # there is no event to wait for: the other one is not refused
    assert [line["decision"] for line in server.audit("open")] == ["allow"]


def test_waiting_ends_if_the_right_is_taken_away(server: Server) -> None:
    gate = server.gate("open --json --wait vm1")
    gate.says()
    server.write_map("nobody-else", "vm1")
    refused = gate.says()
    assert (refused["event"], refused["code"]) == ("refused", 77)
    assert gate.exit_code() == 77


def test_client_that_leaves_while_waiting_is_logged_and_its_connection_closed(
    server: Server,
) -> None:
    gate = server.gate("open --json --wait vm1")
    gate.says()
    before = server.descriptors(server.broker)
    gate.process.terminate()
    (line,) = wait_until(lambda: server.audit("open"), "the log line")
    assert (line["decision"], line["reason"]) == ("deny", "the client left while it waited")
    wait_until(lambda: server.descriptors(server.broker) < before, "its connection to be closed")


def test_waiting_gate_exits_if_the_broker_dies(server: Server) -> None:
    """There is no session yet that the next broker could go on with."""
    gate = server.gate("open --json --wait vm1")
    gate.says()
    server.kill_broker()
    assert gate.says()["reason"] == "the server's broker went away"
    assert gate.exit_code() == 70


def test_message_of_a_gate_that_waits_is_refused(server: Server) -> None:
    with server.speaker() as gate:
        gate.send({"v": 1, "op": "open", "vm": "vm1", "wait": True})
        assert gate.receive()["event"] == "waiting"
        gate.send({"op": "usage", "channels": {}})
        assert "nothing to say" in str(gate.receive()["reason"])


def test_session_is_kept_through_a_restart_of_the_vm(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    vm.switch_off()
    far.close()
    assert gate.says() == {"event": "waiting", "reason": "", "hint": ""}
    stopped = gate.says()
    assert (stopped["event"], stopped["reason"]) == (
        "waiting",
        "'vm1' has stopped; waiting 60 s for its restart",
    )
    again = server.vm("vm1")
    ready = gate.says()
    assert (ready["event"], ready["session"]) == ("ready", server.audit("open")[0]["session"])
    viewer, far = server.channel(again)
    viewer.sendall(b"x")
    assert far.recv(1) == b"x"
    assert [line["state"] for line in server.audit("vm")] == ["off", "back"]


def test_gate_is_told_of_the_loss_before_the_viewer_sees_it(server: Server) -> None:
    """Even if the broker is held up for some seconds."""
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    viewer, far = server.channel(vm)
    server.broker.send_signal(signal.SIGSTOP)
    far.close()
    viewer.settimeout(1)
    with pytest.raises(TimeoutError):
        viewer.recv(1)
    server.broker.send_signal(signal.SIGCONT)
    viewer.settimeout(10)
    assert viewer.recv(1) == b""
    assert gate.process.stdout
    assert select.select([gate.process.stdout], [], [], 0)[0], (
        "the gate was not told before the viewer"
    )
    assert gate.says() == {"event": "waiting", "reason": "", "hint": ""}


def test_viewer_is_not_held_forever_without_a_broker(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1", "--keep")
    viewer, far = server.channel(vm)
    server.kill_broker()
    far.close()
    viewer.settimeout(20)
    assert viewer.recv(1) == b""


def test_viewer_is_not_held_forever_by_a_stopped_gate(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    viewer, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    far.close()
    assert viewer.recv(1) == b""


def test_vm_that_closes_a_side_channel_is_not_treated_as_lost(server: Server) -> None:
    """The first that its gate hears is the end of the person's right, a while later."""
    server.restart_patched("from spicetunnel.broker import vmlife; vmlife.CHECKS = (0.0,)")
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    server.channel(vm)
    viewer, far = server.channel(vm, DISPLAY)
    assert gate.says(is_about_viewer=True) == {"event": "attached"}
    far.close()
    assert viewer.recv(1) == b""
    viewer.close()
    wait_until(lambda: server.audit("channel-end"), "its end")
    server.write_map("nobody-else", "vm1")
    end = gate.says()
    assert (end["event"], end["code"]) == ("end", 77)
    assert end["reason"] == "you may no longer use 'vm1': no grant names you"


def test_quick_restart_of_the_vm_is_noticed(server: Server) -> None:
    """The broker never saw the VM off, but its socket is another one."""
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    vm.switch_off()
    again = server.vm("vm1")
    far.close()
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "ready"
    server.channel(again)


def test_seat_is_kept_through_a_restart_of_the_vm(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    vm.switch_off()
    far.close()
    gate.says()
    gate.says()
    server.vm("vm1")
    refused = server.other().gate("open --json vm1")
    assert (refused["event"], refused["code"]) == ("refused", 75)


def test_kept_session_ends_if_the_running_vm_closes_its_connection(server: Server) -> None:
    """As QEMU does if another viewer connects directly: to connect again would close that one."""
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    far.close()
    assert gate.says()["event"] == "waiting"
    end = gate.says()
    assert (end["event"], end["code"], end["reason"]) == (
        "end",
        75,
        "'vm1' closed the connection",
    )


def test_session_without_keep_ends_if_the_vm_stops(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    vm.switch_off()
    far.close()
    end = gate.says()
    assert (end["event"], end["code"], end["reason"]) == ("end", 69, "'vm1' has stopped")
    assert gate.exit_code() == 69


def test_kept_session_goes_on_if_its_viewer_finds_the_vm_off(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    vm.switch_off()
    viewer = server.connect()
    viewer.sendall(link())
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "waiting"
    server.vm("vm1")
    assert gate.says()["event"] == "ready"


def test_session_goes_on_if_the_vm_restarts_while_there_is_no_broker(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    server.kill_broker()
    vm.switch_off()
    far.close()
    again = server.vm("vm1")
    server.start()
    assert gate.says()["event"] == "waiting"
    assert gate.says()["event"] == "ready"
    server.channel(again)


@pytest.mark.parametrize("take", ["--take-over", "--replace {id}"])
def test_person_who_reconnects_can_end_their_stale_session(server: Server, take: str) -> None:
    """After the client's network failed, its old connection looks alive for a minute."""
    vm = server.vm("vm1")
    first = server.open("vm1")
    _, far = server.channel(vm)
    os.kill(first.process.pid, signal.SIGSTOP)
    session = str(server.audit("open")[0]["session"])
    other = server.other()
    ready = other.gate(f"open --json {take.format(id=session)} vm1")
    assert ready["event"] == "ready"
    assert ready["session"] != session
    assert far.recv(1) == b""


def test_replace_of_another_persons_session_is_refused(server: Server) -> None:
    """Even with its id, which is no secret: her session goes on until her own right ends."""
    text = f"delegates: [{os.getuid()}]\n"
    text += "vms: {vm1: {socket: '{dir}/vm1', allow: [{user: [anne, bob]}]}}\n"
    server.use_map(text)
    server.vm("vm1")
    with server.speaker() as anne:
        anne.send({"v": 1, "op": "open", "vm": "vm1", "as": "anne"})
        session = anne.receive()["session"]
        refused = server.other().say(
            {"v": 1, "op": "open", "vm": "vm1", "as": "bob", "replace": session}
        )
        assert (refused["event"], refused["code"]) == ("refused", 75)
        assert str(refused["reason"]).startswith("'vm1' is in use by anne since")
        server.use_map(text.replace("anne, ", ""))
        end = anne.receive()
        assert end["reason"] == "you may no longer use 'vm1': no grant names you"


def unreachable(server: Server, name: str) -> None:
    """A symbolic link in the socket's place. (Permissions would not stop a test that root runs.)"""
    (server.directory / name).symlink_to("/run")


CANNOT = "the console of 'vm1' cannot be reached (its path is a symbolic link)"


@pytest.mark.parametrize("keep", [True, False])
def test_vm_that_comes_back_with_other_rights_is_not_off(server: Server, keep: bool) -> None:
    """It was called stopped, after 60 s of waiting."""
    server.restart_patched("from spicetunnel.broker import vmlife; vmlife.SETTLE = 1.0")
    vm = server.vm("vm1")
    gate = server.open("vm1", *(["--keep"] if keep else []))
    _viewer, far = server.channel(vm)
    vm.switch_off()
    unreachable(server, "vm1")
    far.close()
    said = gate.says()
    while said["event"] == "waiting":
        said = gate.says()
    assert (said["event"], said["code"], said["reason"]) == ("end", 70, CANNOT)
    assert "tell the admin" in str(said["hint"])


def test_vm_whose_socket_gets_its_rights_late_goes_on(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _viewer, far = server.channel(vm)
    vm.switch_off()
    unreachable(server, "vm1")
    far.close()
    assert gate.says()["event"] == "waiting"
    vm.path.unlink()
    vm.listen()
    server.at_the_end(vm.listener.close)
    assert gate.says()["event"] == "ready"


def test_vm_that_cannot_be_reached_is_named_so_in_the_list_and_not_waited_for(
    server: Server,
) -> None:
    unreachable(server, "vm1")
    listed = server.gate("list --json").says()
    states = {vm["name"]: vm["state"] for vm in listed["vms"]}  # type: ignore[attr-defined]
    assert states["vm1"] == "unreachable"
    refused = server.gate("open --json --wait vm1").says()
    assert (refused["event"], refused["reason"]) == ("refused", CANNOT)
