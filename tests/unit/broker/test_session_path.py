"""A session through broker and gate from beginning to end, and what is refused."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest

from spicetunnel.broker import opening
from spicetunnel.spice.link import refusal
from tests.stage.spice import link
from tests.unit.broker.server import (
    DISPLAY,
    MAIN,
    PATIENCE,
    Server,
    other_connection,
    wait_until,
)


def answer(viewer: socket.socket) -> bytes:
    """All bytes that the viewer gets until its connection is closed."""
    data = b""
    try:
        while part := viewer.recv(1000):
            data += part
    except ConnectionResetError:
        pass
    return data


def unread(sock: socket.socket) -> int:
    """What the other end has not read yet, in the kernel's measure; 0 if it has read everything."""
    buffer = bytearray(4)
    fcntl.ioctl(sock, termios.TIOCOUTQ, buffer)
    return int.from_bytes(buffer, sys.byteorder)


def test_bytes_go_both_ways_after_the_link(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.sendall(b"to the vm")
    assert far.recv(100) == b"to the vm"
    far.sendall(b"\x00to the viewer\xff")
    assert viewer.recv(100) == b"\x00to the viewer\xff"


def test_ready_names_session_vm_and_title(server: Server) -> None:
    server.vm("vm1")
    gate = server.gate("open --json vm1")
    ready = gate.says()
    assert ready == {
        "event": "ready",
        "session": ready["session"],
        "vm": "vm1",
        "title": "the vm1",
        "until": "",
        "zone": "",
        "limits": [],
        "grace": 60,
        "tunnel": f"{server.directory}/tunnel.sock",
    }


def test_attached_is_said_once_main_has_succeeded(server: Server) -> None:
    """SPICE opens the other channels only then. It is said once."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    server.channel(vm)
    assert gate.is_silent()
    server.channel(vm, DISPLAY)
    assert gate.says(is_about_viewer=True) == {"event": "attached"}
    server.channel(vm, DISPLAY)
    assert gate.is_silent()


def test_attached_is_said_again_after_a_restart_of_the_vm(server: Server) -> None:
    """There a client starts another viewer."""
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    viewers = [server.channel(vm), server.channel(vm, DISPLAY)]
    assert gate.says(is_about_viewer=True) == {"event": "attached"}
    vm.switch_off()
    for viewer, far in viewers:
        far.close()
        viewer.close()
    assert [gate.says()["event"] for _ in range(2)] == ["waiting", "waiting"]
    again = server.vm("vm1")
    assert gate.says()["event"] == "ready"
    server.channel(again)
    server.channel(again, DISPLAY)
    assert gate.says(is_about_viewer=True) == {"event": "attached"}


def test_a_person_without_our_client_is_not_told_of_it(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.gate("open vm1")
    assert gate.process.stdout
    assert gate.process.stdout.readline().startswith("vm1 is ready")
    server.channel(vm)
    server.channel(vm, DISPLAY)
    assert gate.is_silent()


def test_bytes_sent_right_after_the_link_are_not_lost(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    viewer.sendall(link() + b"at once")
    far = vm.accept()
    data = b""
    while len(data) < len(link()) + 7:
        data += far.recv(100)
    assert data == link() + b"at once"
    far.close()


def test_link_may_arrive_byte_by_byte(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    for byte in link():
        viewer.sendall(bytes([byte]))
        wait_until(lambda: unread(viewer) == 0, "the broker to read the byte")
    far = vm.accept()
    assert far.recv(100) == link()
    far.close()


@pytest.mark.parametrize(
    ("sent", "reason", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "wrong magic", 2),
        (b"SSH-2.0-OpenSSH_9", "wrong magic", 2),
        (link(connection_id=1), "a main channel with a connection id", 7),
        (struct.pack("<4sIII", b"REDQ", 2, 2, 4097), "a link message of 4097 bytes", 3),
        (struct.pack("<4sIII", b"REDQ", 2, 2, 2**32 - 1), "a link message of 4294967295", 3),
        (struct.pack("<4sIII", b"REDQ", 2, 2, 3), "a link message of 3 bytes", 3),
        (struct.pack("<4sIII", b"REDQ", 3, 0, 18), "SPICE protocol 3", 4),
        (link(DISPLAY, 7), "no main channel is open", 9),
    ],
)
def test_refused_link_never_reaches_the_vm(
    server: Server, sent: bytes, reason: str, code: int
) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    viewer.sendall(sent)
    assert answer(viewer) == refusal(code)
    denied = wait_until(lambda: server.audit("channel"), "the log line")[0]
    assert denied["decision"] == "deny"
    assert reason in str(denied["reason"])
    vm.listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        vm.accept()


def test_connection_that_ends_within_the_link_is_logged(server: Server) -> None:
    server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    viewer.sendall(link()[:20])
    viewer.shutdown(socket.SHUT_WR)
    answer(viewer)
    denied = wait_until(lambda: server.audit("channel"), "the log line")[0]
    assert "ended within the link" in str(denied["reason"])


def test_stalled_link_is_refused_after_a_timeout(server: Server) -> None:
    server.restart_patched("tunnel.LINK_TIMEOUT = 0.5")
    server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    viewer.sendall(link()[:-1])
    assert answer(viewer) == refusal(1)
    assert "no link message within 0.5 s" in str(server.audit("channel")[0]["reason"])


def test_second_viewer_in_one_session_is_refused_and_the_first_goes_on(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    second = server.connect()
    second.sendall(link())
    assert answer(second) == refusal(9)
    viewer.sendall(b"still here")
    assert far.recv(100) == b"still here"


def test_viewer_may_connect_after_the_first_one_left(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.close()
    assert far.recv(1) == b""
    far.close()
    wait_until(lambda: server.audit("channel-end"), "the first channel to end")
    server.channel(vm)


def test_channel_without_a_session_is_refused(server: Server) -> None:
    vm = server.vm("vm1")
    viewer = server.connect()
    with contextlib.suppress(BrokenPipeError):  # the broker may have closed it already
        viewer.sendall(link())
    assert answer(viewer) == b""
    vm.listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        vm.accept()
    assert server.audit("channel")[0]["reason"] == "no session belongs to this connection"


def test_two_sessions_of_one_user_never_mix(server: Server) -> None:
    vm1, vm2 = server.vm("vm1"), server.vm("vm2")
    server.open("vm1")
    with other_connection(server) as other:
        assert other.gate("open --json vm2")["vm"] == "vm2"
        for turn in range(1, 21):
            there = other.connect()
            there.sendall(link())
            far2 = vm2.accept()
            assert far2.recv(100) == link()
            viewer, far1 = server.channel(vm1)
            for near, far, text in ((viewer, far1, b"one"), (there, far2, b"two")):
                near.sendall(text)
                assert far.recv(100) == text
            for each in (viewer, far1, there, far2):
                each.close()
            wait_for_ends(server, 2 * turn)


def wait_for_ends(server: Server, count: int) -> None:
    wait_until(lambda: len(server.audit("channel-end")) == count, f"{count} channels to end")


def test_process_below_the_ssh_connections_process_may_open_a_channel(server: Server) -> None:
    """As a child of sshd is. tests/refusals tries a process that is not below it."""
    vm = server.vm("vm1")
    server.open("vm1")
    with other_connection(server) as below:
        viewer = below.connect()
        viewer.sendall(link())
        far = vm.accept()
        assert far.recv(100) == link()
        viewer.close()
        far.close()


def test_second_open_on_one_connection_is_refused_with_a_hint(server: Server) -> None:
    server.vm("vm1")
    server.vm("vm2")
    server.open("vm1")
    second = server.gate("open --json vm2")
    refused = second.says()
    assert refused["code"] == 64
    assert "already" in str(refused["reason"])
    assert "ControlPath=none" in str(refused["hint"])
    assert second.exit_code() == 64


def test_open_is_refused_if_the_vms_socket_is_stale(server: Server) -> None:
    server.vm("vm1").listener.close()
    assert server.gate("open --json vm1").says()["code"] == 69


def test_refusals_of_a_forbidden_and_of_an_unknown_vm_are_alike(server: Server) -> None:
    server.write_map("somebody-else", "vm1")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) == 2, "the reload")
    server.vm("vm1")
    forbidden, unknown = server.gate("open --json vm1"), server.gate("open --json vm9")
    first, second = forbidden.says(), unknown.says()
    assert first["code"] == second["code"] == 77
    assert str(first).replace("vm1", "vm9") == str(second)


def test_refusal_of_a_busy_vm_says_who_uses_it_and_since_when(server: Server) -> None:
    server.vm("vm1")
    with other_connection(server) as other:
        other.gate("open --json vm1")
        refused = server.gate("open --json vm1").says()
        assert refused["code"] == 75
        assert "in use by you since" in str(refused["reason"])


def test_take_over_of_ones_own_session_cuts_the_old_one_first(server: Server) -> None:
    vm = server.vm("vm1")
    with other_connection(server) as other:
        other.gate("open --json vm1")
        old = other.connect()
        old.sendall(link())
        old_far = vm.accept()
        server.open("vm1", "--take-over")
        assert old_far.recv(100) == link()
        assert old_far.recv(100) == b""
        assert answer(old) == b""
        server.channel(vm)
        old.close()
        old_far.close()


def test_list_shows_the_state_of_each_vm(server: Server) -> None:
    server.vm("vm1")
    rows = server.gate("list --json").says()["vms"]
    empty = dict.fromkeys(("busy_by", "until", "next", "zone"), "")
    nothing_more: dict[str, object] = {**empty, "limits": [], "take_over": False}
    assert rows == [
        {"name": "vm1", "title": "the vm1", "state": "free"} | nothing_more,
        {"name": "vm2", "title": "the vm2", "state": "off"} | nothing_more,
    ]


def test_list_without_json_is_a_table(server: Server) -> None:
    server.vm("vm1")
    server.open("vm1")
    gate = server.gate("")
    out, err = gate.process.communicate(timeout=10)
    assert err == ""
    busy = f"busy ({server.user})"
    assert out.splitlines() == [
        f"VM   {'STATE':<{len(busy)}}  TITLE",
        f"vm1  {busy}  the vm1",
        f"vm2  {'off':<{len(busy)}}  the vm2",
    ]


def test_list_of_two_thousand_vms_is_complete(server: Server) -> None:
    server.write_map(server.user, *[f"vm{number:04}-{'x' * 50}" for number in range(2000)])
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) == 2, "the reload")
    rows = server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert len(rows) == 2000


def test_whoami_names_user_and_uid(server: Server) -> None:
    out, _ = server.gate("whoami").process.communicate(timeout=10)
    assert f"user: {server.user}" in out
    assert f"uid: {os.getuid()}" in out


def test_rejected_command_is_logged_escaped(server: Server) -> None:
    gate = server.gate("open vm1; id\n\x1b[2J")
    assert gate.exit_code() == 64
    line = wait_until(lambda: server.audit("command"), "the log line")[0]
    assert line["command"] == r"'open vm1; id\n\x1b[2J'"
    assert line["decision"] == "deny"


def test_grant_taken_away_ends_the_running_session(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    server.write_map("somebody-else", "vm1")
    end = gate.says()
    assert end["event"] == "end"
    assert end["code"] == gate.exit_code() == 77
    assert far.recv(1) == b""
    assert answer(viewer) == b""


def test_bad_map_never_replaces_a_good_one(server: Server) -> None:
    server.vm("vm1")
    server.map.write_text("vms: [oops")
    wait_until(lambda: len(server.audit("map")) == 2, "the broker to read it")
    refused = server.audit("map")[1]
    assert refused["decision"] == "deny"
    assert "vms.yaml:1:" in str(refused["problems"])
    server.open("vm1")


def test_session_goes_on_if_the_running_vm_closes_the_main_channel(server: Server) -> None:
    """As with a wrong SPICE password: the viewer asks for the right one and connects again."""
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    far.close()
    assert answer(viewer) == b""
    wait_until(lambda: server.audit("channel-end"), "the channel to end")
    server.channel(vm)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_dead_gate_frees_seat_and_channels_at_once(server: Server, how: signal.Signals) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    gate.process.send_signal(how)
    gate.process.wait()
    assert far.recv(1) == b""
    assert answer(viewer) == b""
    wait_until(lambda: server.audit("session-end"), "the session's end", PATIENCE * 2)
    server.open("vm1")


def test_stopped_gate_does_not_delay_a_revocation(server: Server) -> None:
    """The broker shuts down the VM's socket without help of the gate."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    server.write_map("somebody-else", "vm1")
    assert far.recv(1) == b""
    assert time.monotonic() - started < PATIENCE * 1, "the broker waited for the gate"
    wait_until(lambda: server.audit("session-end"), "the session's end")


def test_gate_exits_if_the_client_leaves(server: Server) -> None:
    """sshd closes its end of the gate's stdout when the connection is gone."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.sendall(b"12345")
    assert far.recv(5) == b"12345"
    assert gate.process.stdout
    gate.process.stdout.close()
    assert gate.exit_code() == 0
    wait_until(lambda: server.audit("session-end"), "the session's end", PATIENCE * 2)
    (channel,) = server.audit("channel-end")
    assert (channel["bytes_up"], channel["bytes_down"]) == (5, 1)


def test_open_is_refused_without_a_broker(server: Server) -> None:
    server.broker.kill()
    server.broker.wait()
    refused = server.gate("open --json vm1")
    assert refused.says()["code"] == 70
    assert refused.exit_code() == 70


def test_second_broker_on_the_same_directory_does_not_start(server: Server) -> None:
    places = ["--map", str(server.map), "--run-dir", str(server.directory)]
    second = subprocess.run(
        [sys.executable, "-m", "spicetunnel.broker", *places],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert second.returncode == 70
    assert "another process serves" in second.stderr
    server.vm("vm1")
    server.open("vm1")


def test_log_has_every_step_of_a_session(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    side, side_far = server.channel(vm, DISPLAY)
    viewer.sendall(b"12345")
    assert far.recv(100) == b"12345"
    side_far.sendall(b"1234567")
    assert side.recv(100) == b"1234567"
    for end in (side, viewer):
        end.close()
    for end in (side_far, far):
        assert end.recv(1) == b""
        end.close()
    wait_until(lambda: len(server.audit("channel-end")) == 2, "the channels to end")
    gate.process.terminate()
    wait_until(lambda: server.audit("session-end"), "the session's end")
    lines = [line for line in server.audit() if line["event"] not in {"map", "start"}]
    assert [line["event"] for line in lines] == [
        "open", "channel", "channel", "channel-end", "channel-end", "session-end",
    ]  # fmt: skip
    session = lines[0]["session"]
    for line in lines:
        assert line["session"] == session
        assert (line["user"], line["uid"], line["vm"]) == (server.user, os.getuid(), "vm1")
        assert line["client"] == "192.0.2.7"
    assert lines[0]["grant"] == f"{server.map}:7"
    ends = {line["type"]: (line["bytes_up"], line["bytes_down"]) for line in lines[3:5]}
    # Without the link message: the broker sends it, and the relay counts.
    assert ends == {"main": (5, 1), "display": (0, 8)}
    assert isinstance(lines[-1]["seconds"], float)


def test_a_thousand_channels_leak_no_descriptor(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    server.channel(vm)[0].close()
    wait_until(lambda: len(server.audit("channel-end")) == 1, "the first channel to end")
    main, main_far = server.channel(vm)
    before = server.descriptors(server.broker), server.descriptors(gate.process)
    for number in range(1000):
        kind = MAIN if number % 50 == 0 else DISPLAY
        viewer = server.connect()
        viewer.sendall(link(kind, 0 if kind == MAIN else 7))
        if kind == MAIN:  # a second main channel is refused
            assert answer(viewer) == refusal(9)
        else:
            far = vm.accept()
            viewer.close()
            while far.recv(100):
                pass
            far.close()
        viewer.close()
    wait_until(lambda: len(server.audit("channel-end")) == 981, "all channels to end")
    main.sendall(b"still here")
    assert main_far.recv(100) == b"still here"

    def as_before() -> bool:
        # Not ==: the broker now and then has a file open for a moment.
        now = server.descriptors(server.broker), server.descriptors(gate.process)
        return all(a <= b for a, b in zip(now, before, strict=True))

    wait_until(as_before, "the descriptors to be closed")


def test_fifty_sessions_leak_no_descriptor(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1").process.kill()
    wait_until(lambda: server.audit("session-end"), "the first one's end")
    before = server.descriptors(server.broker)
    for number in range(2, 52):
        gate = server.open("vm1")
        viewer, far = server.channel(vm)
        gate.process.kill()
        wait_until(lambda n=number: len(server.audit("session-end")) == n, "its end")  # type: ignore[misc]
        viewer.close()
        far.close()
    wait_until(lambda: server.descriptors(server.broker) <= before, "the descriptors to be closed")


def test_log_gives_the_reason_of_a_revocation_for_its_channels_too(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.sendall(b"12345")
    assert far.recv(5) == b"12345"
    server.write_map("somebody-else", "vm1")
    assert gate.exit_code() == 77
    end = wait_until(lambda: server.audit("session-end"), "the session's end")[0]
    (channel,) = server.audit("channel-end")
    assert channel["reason"] == end["reason"] == "you may no longer use 'vm1': no grant names you"
    assert (channel["bytes_up"], channel["bytes_down"]) == (5, 1)  # the relay's final counts


def test_run_directory_that_others_may_write_is_refused(server: Server) -> None:
    server.broker.kill()
    server.broker.wait()
    run_dir = server.directory / "open"
    run_dir.mkdir()
    run_dir.chmod(0o777)
    places = ["--map", str(server.map), "--run-dir", str(run_dir)]
    program = [sys.executable, "-m", "spicetunnel.broker", *places]
    started = subprocess.run(program, capture_output=True, text=True, timeout=10, check=False)
    assert started.returncode == 70
    assert "writable by no one else" in started.stderr


def test_malformed_request_is_refused(server: Server) -> None:
    """From a program in the gate's place: a wrong version, an invalid VM name."""
    for message in ({"v": 2, "op": "list"}, {"v": 1, "op": "open", "vm": "../vm1"}):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(str(server.directory / "control.sock"))
            sock.send(json.dumps(message).encode())
            refused = json.loads(sock.recv(65536))
            assert (refused["event"], refused["code"]) == ("refused", 70)
    assert not server.audit("open")


def test_session_ends_with_its_ssh_connection_even_if_the_gate_lives_on(server: Server) -> None:
    """As a program in the gate's place might, on purpose."""
    vm = server.vm("vm1")
    with other_connection(server) as other:
        other.gate("open --json vm1")
        viewer = other.connect()
        viewer.sendall(link())
        far = vm.accept()
        assert far.recv(100) == link()
        for gate in other.children():  # so that it does not notice the end of its stdout
            os.kill(gate, signal.SIGSTOP)
        os.kill(other.pid, signal.SIGKILL)
        assert far.recv(1) == b""
        end = wait_until(lambda: server.audit("session-end"), "the session's end", PATIENCE * 2)[0]
        assert end["reason"] == "the SSH connection is gone"
        os.kill(gate, signal.SIGKILL)
        viewer.close()
        far.close()


def test_session_ends_if_the_map_names_another_socket_for_its_vm(server: Server) -> None:
    """What runs at the old socket is no longer that VM."""
    server.vm("vm1")
    gate = server.open("vm1")
    server.map.write_text(server.map.read_text().replace("/vm1\n", "/elsewhere\n"))
    assert gate.says()["reason"] == "'vm1' has moved"
    assert gate.exit_code() == 69


def test_refusal_takes_equally_long_whether_or_not_the_vm_exists(server: Server) -> None:
    """Without a least time it was 1.07 ms at a VM with 1,000 grants, and 0.56 ms for none."""
    grants = "".join(f"      - {{user: u{number}}}\n" for number in range(1000))
    server.use_map(f"vms:\n  many:\n    socket: {{dir}}/many\n    allow:\n{grants}")
    for vm in ("many", "none"):
        with server.speaker() as gate:
            started = time.monotonic()
            gate.send({"v": 1, "op": "open", "vm": vm})
            assert gate.receive()["event"] == "refused"
            assert time.monotonic() - started >= opening.REFUSAL
