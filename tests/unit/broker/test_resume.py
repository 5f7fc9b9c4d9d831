"""The broker dies and a new one starts: sessions go on, and the new broker knows them."""

import contextlib
import json
import os
import signal
import socket
from datetime import datetime, timedelta

import pytest

from spicetunnel.admin.broker import ask_rows
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import encode
from tests.unit.broker.server import DISPLAY, PATIENCE, Server, other_connection, wait_until


def kill_and_restart(server: Server, *options: str) -> None:
    server.kill_broker()
    server.start(*options)


def resumed(server: Server, count: int = 1) -> list[dict[str, object]]:
    """Wait until so many sessions were resumed; their log lines."""
    return wait_until(
        lambda: (found := server.audit("resume"))[count - 1 :] and found,
        "the sessions to be resumed",
        5,
    )


def moment(line: dict[str, object]) -> datetime:
    """When a line of the log was written."""
    return datetime.fromisoformat(str(line["time"]))


def test_channels_go_on_without_a_broker_until_the_grace_is_over(server: Server) -> None:
    server.kill_broker()
    server.start("--grace", "2")
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    side, side_far = server.channel(vm, DISPLAY)
    server.kill_broker()
    side.close()
    assert side_far.recv(1) == b""
    for _ in range(10):
        viewer.sendall(b"ping")
        assert far.recv(4) == b"ping"
        far.sendall(b"pong")
        assert viewer.recv(4) == b"pong"
    said = gate.says()
    assert (said["event"], said["code"]) == ("end", 70)
    assert said["reason"] == "the server's broker has been away for 2 s"
    assert gate.exit_code() == 70
    assert far.recv(1) == b""


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_session_is_known_to_the_next_broker(server: Server, how: str) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    server.kill_broker() if how == "killed" else server.stop_broker()
    viewer.sendall(b"meanwhile")
    server.start()
    (line,) = resumed(server)
    opened = server.audit("open")[0]
    assert {key: line[key] for key in ("session", "user", "vm", "client")} == {
        key: opened[key] for key in ("session", "user", "vm", "client")
    }
    assert line["channels"] == 1
    assert far.recv(100) == b"meanwhile"
    far.sendall(b"and on")
    assert viewer.recv(100) == b"and on"
    assert gate.process.poll() is None
    assert server.audit("session-end") == []


def test_new_channel_opens_in_a_session_of_the_previous_broker(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    kill_and_restart(server)
    resumed(server)
    viewer, far = server.channel(vm, DISPLAY)
    viewer.sendall(b"x")
    assert far.recv(1) == b"x"
    assert [line["channel"] for line in server.audit("channel")] == [1, 2]


def test_new_broker_knows_twenty_sessions_within_five_seconds(server: Server) -> None:
    names = [f"many{number}" for number in range(20)]
    server.write_map(server.user, *names)
    wait_until(lambda: len(server.audit("map")) == 2, "the map")
    ends = []
    others = []
    for name in names:
        vm = server.vm(name)
        other = server.other()
        others.append(other)
        assert other.gate(f"open --json {name}")["event"] == "ready"
        viewer = other.connect()
        ends.append(server.through(viewer, vm))
    server.kill_broker()
    for number, (viewer, _) in enumerate(ends):
        viewer.sendall(b"%02d" % number)
    server.start()
    (*_, last) = resumed(server, 20)
    began = server.audit("start")[-1]
    assert moment(last) - moment(began) < timedelta(seconds=5)  # it takes some 12 ms
    for number, (_, far) in enumerate(ends):
        assert far.recv(10) == b"%02d" % number
    assert server.audit("session-end") == []


def test_session_of_the_previous_broker_can_be_revoked(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    kill_and_restart(server)
    resumed(server)
    server.write_map("nobody-else", "vm1")
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""
    assert gate.exit_code() == 77
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["session"] == server.audit("open")[0]["session"]


def test_session_ends_if_its_right_was_taken_away_while_there_was_no_broker(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    server.write_map("nobody-else", "vm1")
    server.start()
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""


def test_new_broker_holds_the_seat_before_the_gate_comes_back(server: Server) -> None:
    """The gate is stopped and has not sent the new broker anything."""
    server.vm("vm1")
    gate = server.open("vm1")
    gate.process.send_signal(signal.SIGSTOP)
    kill_and_restart(server)
    with other_connection(server) as other:
        refused = other.gate("open --json vm1")
        assert refused["code"] == 75
        assert str(refused["reason"]).startswith("'vm1' is in use by you since")
        gate.process.send_signal(signal.SIGCONT)
        resumed(server)
        assert other.gate("open --json vm1")["code"] == 75


@pytest.mark.parametrize("name", ["vm1", "vm2"])
def test_second_open_on_a_connection_is_refused_before_its_gate_comes_back(
    server: Server, name: str
) -> None:
    """With ControlMaster, a person can open again before the first gate has come back."""
    server.vm("vm1")
    server.vm("vm2")
    first = server.open("vm1")
    session = session_of(server)
    first.process.send_signal(signal.SIGSTOP)
    kill_and_restart(server)
    refused = server.gate(f"open --json --take-over {name}").says()
    assert (refused["event"], refused["code"]) == ("refused", 64)
    first.process.send_signal(signal.SIGCONT)
    resumed(server)
    server.write_map("nobody-else", "vm1", "vm2")
    assert first.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["session"] == session


def test_seat_is_free_if_the_ssh_connection_ended_while_there_was_no_broker(server: Server) -> None:
    server.vm("vm1")
    with other_connection(server) as other:
        assert other.gate("open --json vm1")["event"] == "ready"
        server.kill_broker()
    server.start()
    assert server.open("vm1")
    (end,) = server.audit("session-end")
    assert end["reason"] == "the SSH connection is gone"


def test_counts_of_a_channel_that_ended_while_there_was_no_broker_are_logged(
    server: Server,
) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    side, side_far = server.channel(vm, DISPLAY)
    server.kill_broker()
    side.sendall(b"123")
    assert side_far.recv(3) == b"123"
    side.close()
    assert side_far.recv(1) == b""
    side_far.close()
    server.start()
    (end,) = wait_until(lambda: server.audit("channel-end"), "the log line")
    assert end["type"] == "display"
    assert (end["bytes_up"], end["reason"]) == (3, "closed by the viewer")


def test_session_whose_gate_has_not_come_back_can_be_taken_over(server: Server) -> None:
    """The gate is told when it comes back."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    kill_and_restart(server)
    with other_connection(server) as other:
        assert other.gate("open --json --take-over vm1")["event"] == "ready"
        gate.process.send_signal(signal.SIGCONT)
        assert "was taken over" in str(gate.says()["reason"])
        assert gate.exit_code() == 75
        assert far.recv(1) == b""


def test_gate_gives_up_on_a_socket_on_which_no_broker_answers(server: Server) -> None:
    """As when the service manager listens but the service does not start."""
    server.kill_broker()
    server.start("--grace", "1")
    server.vm("vm1")
    gate = server.open("vm1")
    server.kill_broker()
    (server.directory / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(server.directory / "control.sock"))
        silent.listen(8)
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_gate_gives_up_on_a_socket_whose_backlog_is_full(server: Server) -> None:
    server.kill_broker()
    server.start("--grace", "1")
    server.vm("vm1")
    gate = server.open("vm1")
    server.kill_broker()
    (server.directory / "control.sock").unlink()
    with contextlib.ExitStack() as parts:
        silent = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        silent.bind(str(server.directory / "control.sock"))
        silent.listen(0)
        first = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        first.connect(str(server.directory / "control.sock"))
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_record_is_removed_when_the_session_ends(server: Server) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    records = server.directory / "sessions"
    assert [path.name for path in records.iterdir()] == [server.audit("open")[0]["session"]]
    assert records.stat().st_mode & 0o777 == 0o700
    gate.process.terminate()
    wait_until(lambda: not list(records.iterdir()), "the record to be removed")


@pytest.mark.parametrize("text", ["", "{", "5", '{"v": 1}', '{"v": 99}', "[]", "\xff"])
def test_invalid_record_is_removed(server: Server, text: str) -> None:
    server.kill_broker()
    (server.directory / "sessions" / "0badbeef").write_text(text)
    server.start()
    assert not (server.directory / "sessions" / "0badbeef").exists()
    assert "no record of a session" in str(server.audit("fault")[-1]["reason"])


def test_record_that_was_never_put_in_place_is_removed(server: Server) -> None:
    """The broker was killed after it wrote the file and before it renamed it."""
    server.vm("vm1")
    server.open("vm1")
    session = session_of(server)
    server.kill_broker()
    records = server.directory / "sessions"
    stray = records / f".{session}.new"
    stray.write_bytes((records / session).read_bytes())
    server.start()
    resumed(server)
    assert not stray.exists()
    assert server.audit("fault") == []


class FakeGate:
    """A program of the user's in the gate's place, on another SSH connection than the gates."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.at_the_end(self.sock.close)
        self.sock.settimeout(10)
        self.sock.connect(str(server.directory / "control.sock"))

    def resume(self, session: str) -> dict[str, object]:
        self.sock.send(encode({"v": 1, "op": "resume", "session": session}))
        answer = json.loads(self.sock.recv(65536))
        assert isinstance(answer, dict)
        return answer


def session_of(server: Server) -> str:
    return str(server.audit("open")[-1]["session"])


@pytest.mark.parametrize("session", ["00000000", "../../x", "", "ABCDEF12"])
def test_resume_of_an_unknown_session_is_refused(server: Server, session: str) -> None:
    assert FakeGate(server).resume(session)["event"] == "refused"


def test_resume_of_a_session_that_has_its_gate_is_refused(server: Server) -> None:
    """The program that tries is on the same SSH connection."""
    server.vm("vm1")
    other = server.other()
    ready = other.gate("open --json vm1")
    answer = other.say({"op": "resume", "session": ready["session"]})
    assert (answer["event"], answer["code"]) == ("refused", 77)


def test_resume_from_another_ssh_connection_is_refused(server: Server) -> None:
    """User and id are right, but the session is bound to another SSH connection's process."""
    server.vm("vm1")
    with other_connection(server) as other:
        ready = other.gate("open --json vm1")
        other.stop_gates()
        kill_and_restart(server)
        answer = FakeGate(server).resume(str(ready["session"]))
        assert (answer["event"], answer["code"]) == ("refused", 77)
        assert answer["reason"] == "this server does not know the session"


@pytest.mark.parametrize("operation", ["whoami", "open", "resume"])
def test_request_with_descriptors_is_refused(server: Server, operation: str) -> None:
    """A gate never sends descriptors."""
    assert server.gate("whoami").exit_code() == 0  # opens what stays open after the first look-up
    before = server.descriptors(server.broker)
    fake_gate = FakeGate(server)
    fdpass.send(fake_gate.sock, encode({"v": 1, "op": operation}), (0, 0))
    refused = json.loads(fake_gate.sock.recv(65536))
    assert refused["event"] == "refused"
    assert "too many descriptors" in str(refused["reason"])
    fake_gate.sock.close()
    wait_until(lambda: server.descriptors(server.broker) == before, "the descriptors to be closed")


def test_session_ends_if_its_gate_does_not_come_back(server: Server) -> None:
    """A hostile gate might stay away on purpose; this one is stopped."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    session = session_of(server)
    _, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    server.restart_patched("lifecycle.COME_BACK = 1")
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert (end["session"], end["reason"]) == (session, "its gate did not come back")
    ends = [(line["session"], line["channel"]) for line in server.audit("channel-end")]
    assert ends == [(session, 1)]
    wait_until(lambda: not server.relay_processes(), "its relay process to end", PATIENCE * 2)


def test_session_is_known_before_its_gate_comes_back(server: Server) -> None:
    """It is listed, its bytes are counted, and it ends when its right does."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.sendall(b"12345")
    assert far.recv(5) == b"12345"
    gate.process.send_signal(signal.SIGSTOP)
    kill_and_restart(server)
    resumed(server)
    (row,) = ask_rows(str(server.directory), "sessions")
    assert (row["id"], row["channels"]) == (session_of(server), 1)
    server.write_map("nobody-else", "vm1")
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("channel-end"), "the end")
    assert (end["bytes_up"], end["bytes_down"]) == (5, 1)


def test_relay_of_a_session_without_a_record_is_ended(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    (server.directory / "sessions" / session_of(server)).unlink()
    server.start()
    assert far.recv(1) == b""
    wait_until(
        lambda: not list((server.relay_dir / "sessions").iterdir()), "its socket to be removed"
    )
    wait_until(
        lambda: server.descriptors(server.broker) < 25, "the relay's descriptors to be closed"
    )


def test_session_ends_if_its_relay_process_died_while_there_was_no_broker(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    (pid,) = server.relay_processes()
    os.kill(pid, signal.SIGKILL)
    assert far.recv(1) == b""
    server.start()
    assert gate.says()["code"] == 77
    (end,) = server.audit("session-end")
    assert "relay does not answer" in str(end["reason"])
    assert not list((server.relay_dir / "sessions").iterdir())


def test_relay_process_that_does_not_answer_the_next_broker_is_killed(server: Server) -> None:
    """The broker has no duplicates of its VM sockets, so only a kill closes its channels."""
    vm = server.vm("vm1")
    server.open("vm1")
    _, far = server.channel(vm)
    (pid,) = server.relay_processes()
    os.kill(pid, signal.SIGSTOP)
    server.kill_broker()
    server.start()
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["reason"] == "the server's relay does not answer"


def test_session_ends_if_another_process_listens_at_its_socket(server: Server) -> None:
    """The other process is the relay's user's too, but not the one on record."""
    vm = server.vm("vm1")
    server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    path = server.relay_dir / "sessions" / session_of(server)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(str(path))
        impostor.listen(4)
        server.start()
        assert far.recv(1) == b"", "the session's own process goes on"
        (end,) = wait_until(lambda: server.audit("session-end"), "the end")
        assert end["reason"] == "another process listens for the session"


def test_session_survives_three_restarts_of_the_broker(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    for count in (1, 2, 3):
        viewer.sendall(b"x")
        kill_and_restart(server)
        resumed(server, count)
        assert far.recv(1) == b"x"
    assert server.audit("session-end") == []


def test_socket_of_the_service_manager_is_used(server: Server) -> None:
    """With socket activation, gates find a listener at any time."""
    server.kill_broker()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.at_the_end(control.close)
    path = server.directory / "control.sock"
    path.unlink()
    control.bind(str(path))
    control.listen(8)
    inode = path.stat().st_ino
    notify = server.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify))
        manager.settimeout(5)
        server.start_under(notify, [("spicetunneld.socket", control.fileno())])
        assert manager.recv(100) == b"READY=1"
    assert path.stat().st_ino == inode
    assert server.gate("list --json").says()["event"] == "vms"
