"""The broker dies and another comes: sessions run on, and the new one knows them."""

import contextlib
import json
import os
import signal
import socket
import time

import pytest

from spicetunnel.admin.broker import ask_rows
from spicetunnel.broker import lifecycle
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import encode
from tests.unit.broker.server import DISPLAY, Server, other_connection, wait_until


def die_and_come_again(server: Server, *options: str) -> None:
    server.kill_broker()
    server.start(*options)


def resumed(server: Server, count: int = 1) -> list[dict[str, object]]:
    return wait_until(
        lambda: (found := server.audit("resume"))[count - 1 :] and found, "the resuming", 5
    )


def test_channels_run_on_while_there_is_no_broker(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    server.kill_broker()
    viewer.sendall(b"up")
    assert far.recv(10) == b"up"
    far.sendall(b"down")
    assert viewer.recv(10) == b"down"


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


def test_new_channels_open_in_a_session_of_the_broker_before(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    die_and_come_again(server)
    resumed(server)
    viewer, far = server.channel(vm, DISPLAY)
    viewer.sendall(b"x")
    assert far.recv(1) == b"x"
    assert [line["channel"] for line in server.audit("channel")] == [1, 2]


def test_twenty_sessions_are_known_again_within_five_seconds(server: Server) -> None:
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
    started = time.monotonic()
    resumed(server, 20)
    assert time.monotonic() - started < 5
    for number, (_, far) in enumerate(ends):
        assert far.recv(10) == b"%02d" % number
    assert server.audit("session-end") == []


def test_session_of_before_can_be_revoked(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    die_and_come_again(server)
    resumed(server)
    server.write_map("nobody-else", "vm1")
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""
    assert gate.exit_code() == 77
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["session"] == server.audit("open")[0]["session"]


def test_right_that_was_taken_away_meanwhile_ends_the_session(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    server.write_map("nobody-else", "vm1")
    server.start()
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""


def test_seat_is_held_from_the_first_moment_of_the_new_broker(server: Server) -> None:
    """Its gate sleeps and has not said a word yet."""
    server.vm("vm1")
    gate = server.open("vm1")
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(server)
    with other_connection(server) as other:
        refused = other.gate("open --json vm1")
        assert refused["code"] == 75
        assert str(refused["reason"]).startswith("'vm1' is in use by you since")
        gate.process.send_signal(signal.SIGCONT)
        resumed(server)
        assert other.gate("open --json vm1")["code"] == 75


@pytest.mark.parametrize("name", ["vm1", "vm2"])
def test_one_session_per_connection_over_a_restart(server: Server, name: str) -> None:
    """With ControlMaster, a person can open again before the first gate has come back."""
    server.vm("vm1")
    server.vm("vm2")
    first = server.open("vm1")
    session = session_of(server)
    first.process.send_signal(signal.SIGSTOP)
    die_and_come_again(server)
    refused = server.gate(f"open --json --take-over {name}").says()
    assert (refused["event"], refused["code"]) == ("refused", 64)
    first.process.send_signal(signal.SIGCONT)
    resumed(server)
    server.write_map("nobody-else", "vm1", "vm2")
    assert first.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["session"] == session


def test_gate_that_died_meanwhile_leaves_the_seat_free(server: Server) -> None:
    server.vm("vm1")
    with other_connection(server) as other:
        assert other.gate("open --json vm1")["event"] == "ready"
        server.kill_broker()
    server.start()
    assert server.open("vm1")
    (end,) = server.audit("session-end")
    assert end["reason"] == "the SSH connection is gone"


def test_channel_that_ended_meanwhile_has_its_counts_in_the_log(server: Server) -> None:
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


def test_take_over_of_a_session_whose_gate_is_away(server: Server) -> None:
    """Its gate hears of it when it comes."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(server)
    with other_connection(server) as other:
        assert other.gate("open --json --take-over vm1")["event"] == "ready"
        gate.process.send_signal(signal.SIGCONT)
        assert "was taken over" in str(gate.says()["reason"])
        assert gate.exit_code() == 75
        assert far.recv(1) == b""


def test_gate_without_a_broker_ends_after_its_grace(server: Server) -> None:
    server.kill_broker()
    server.start("--grace", "1")
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    server.kill_broker()
    said = gate.says()
    assert (said["code"], said["reason"]) == (70, "the server's broker has been away for 1 s")
    assert far.recv(1) == b""


def test_socket_on_which_no_broker_ever_answers_is_none(server: Server) -> None:
    """As where the service manager listens, and the service does not come up."""
    server.kill_broker()
    server.start("--grace", "1")
    server.vm("vm1")
    gate = server.open("vm1")
    server.kill_broker()
    (server.directory / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(str(server.directory / "control.sock"))
        deaf.listen(8)
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_queue_that_is_full_keeps_no_gate_waiting(server: Server) -> None:
    server.kill_broker()
    server.start("--grace", "1")
    server.vm("vm1")
    gate = server.open("vm1")
    server.kill_broker()
    (server.directory / "control.sock").unlink()
    with contextlib.ExitStack() as parts:
        deaf = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        deaf.bind(str(server.directory / "control.sock"))
        deaf.listen(0)
        first = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        first.connect(str(server.directory / "control.sock"))
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_stopped_broker_leaves_no_record_of_a_session_that_ended(server: Server) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    records = server.directory / "sessions"
    assert [path.name for path in records.iterdir()] == [server.audit("open")[0]["session"]]
    assert records.stat().st_mode & 0o777 == 0o700
    gate.process.terminate()
    wait_until(lambda: not list(records.iterdir()), "the record to go")


@pytest.mark.parametrize("text", ["", "{", "5", '{"v": 1}', '{"v": 99}', "[]", "\xff"])
def test_record_that_is_none_is_removed(server: Server, text: str) -> None:
    server.kill_broker()
    (server.directory / "sessions" / "0badbeef").write_text(text)
    server.start()
    assert not (server.directory / "sessions" / "0badbeef").exists()
    assert "no record of a session" in str(server.audit("fault")[-1]["reason"])


def test_record_that_was_never_put_in_place_is_nobodys(server: Server) -> None:
    """A broker killed between writing and renaming: the one that is in place counts alone."""
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


class Forger:
    """A program of the user's own in the place of a gate, below the same SSH connection."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.at_the_end(self.sock.close)
        self.sock.settimeout(10)
        self.sock.connect(str(server.directory / "control.sock"))

    def resume(self, session: str, *fds: int) -> dict[str, object]:
        fdpass.send(self.sock, encode({"v": 1, "op": "resume", "session": session}), fds)
        answer = json.loads(self.sock.recv(65536))
        assert isinstance(answer, dict)
        return answer


def session_of(server: Server) -> str:
    return str(server.audit("open")[-1]["session"])


@pytest.mark.parametrize("session", ["00000000", "../../x", "", "ABCDEF12"])
def test_resume_of_no_session_is_refused(server: Server, session: str) -> None:
    assert Forger(server).resume(session)["event"] == "refused"


def test_resume_of_a_session_that_has_its_gate_is_refused(server: Server) -> None:
    server.vm("vm1")
    server.open("vm1")
    answer = Forger(server).resume(session_of(server))
    assert (answer["event"], answer["code"]) == ("refused", 77)


def test_resume_from_another_ssh_connection_is_refused(server: Server) -> None:
    """The same user's, and the right id: but not the process that the session is bound to."""
    server.vm("vm1")
    with other_connection(server) as other:
        ready = other.gate("open --json vm1")
        other.stop_gates()
        die_and_come_again(server)
        answer = Forger(server).resume(str(ready["session"]))
        assert (answer["event"], answer["code"]) == ("refused", 77)
        assert answer["reason"] == "this server does not know the session"


@pytest.mark.parametrize("operation", ["whoami", "open", "resume"])
def test_descriptors_beside_a_request_are_refused(server: Server, operation: str) -> None:
    """No gate brings any: what the relay moves never was a gate's."""
    assert server.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = server.descriptors(server.broker)
    forger = Forger(server)
    fdpass.send(forger.sock, encode({"v": 1, "op": operation}), (0, 0))
    refused = json.loads(forger.sock.recv(65536))
    assert refused["event"] == "refused"
    assert "too many descriptors" in str(refused["reason"])
    forger.sock.close()
    wait_until(lambda: server.descriptors(server.broker) == before, "them to be closed")


def patched(server: Server, change: str) -> None:
    """The broker of now on, with a wait that is shorter."""
    assert lifecycle.COME_BACK == 10
    server.kill_broker()
    server.patch = change
    server.start()


def test_gate_that_does_not_come_back_ends_the_session(server: Server) -> None:
    """A hostile one would go on without us; stopped, it cannot even answer."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    session = session_of(server)
    _, far = server.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    patched(server, "lifecycle.COME_BACK = 1")
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert (end["session"], end["reason"]) == (session, "its gate did not come back")
    ends = [(line["session"], line["channel"]) for line in server.audit("channel-end")]
    assert ends == [(session, 1)]
    wait_until(lambda: not server.relay_processes(), "its relay process to end", 2)


def test_session_is_known_before_its_gate_comes_back(server: Server) -> None:
    """Seen, counted, and ended by its id."""
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = server.channel(vm)
    viewer.sendall(b"12345")
    assert far.recv(5) == b"12345"
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(server)
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
    wait_until(lambda: not list((server.relay_dir / "sessions").iterdir()), "its socket to go")


def test_relay_process_that_died_meanwhile_ends_the_session(server: Server) -> None:
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
    """We have no duplicate of its VM's ends, so its end is the only cut."""
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


def test_impostor_at_a_session_s_socket_is_not_believed(server: Server) -> None:
    """Another process of the relay's user listens there: it is not the one on record."""
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
        assert far.recv(1) == b"", "and the real one is killed"
        (end,) = wait_until(lambda: server.audit("session-end"), "the end")
        assert end["reason"] == "another process listens for the session"


def test_two_brokers_in_a_row_are_both_survived(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    for count in (1, 2, 3):
        viewer.sendall(b"x")
        die_and_come_again(server)
        resumed(server, count)
        assert far.recv(1) == b"x"
    assert server.audit("session-end") == []


def test_sockets_that_the_manager_listens_on_are_used(server: Server) -> None:
    """As with socket activation: no moment in which a gate finds nobody."""
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
