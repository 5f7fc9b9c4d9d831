"""The broker dies and another comes: sessions run on, are handed back, and are as before."""

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
from tests.unit.broker.house import DISPLAY, House, other_connection, wait_until


def die_and_come_again(house: House, *options: str) -> None:
    house.kill_broker()
    house.start(*options)


def resumed(house: House, count: int = 1) -> list[dict[str, object]]:
    return wait_until(
        lambda: (found := house.audit("resume"))[count - 1 :] and found, "the resuming", 5
    )


def test_channels_run_on_while_there_is_no_broker(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    viewer, far = house.channel(vm)
    house.kill_broker()
    viewer.sendall(b"up")
    assert far.recv(10) == b"up"
    far.sendall(b"down")
    assert viewer.recv(10) == b"down"


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_session_is_handed_to_the_next_broker(house: House, how: str) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    viewer, far = house.channel(vm)
    house.kill_broker() if how == "killed" else house.stop_broker()
    viewer.sendall(b"meanwhile")
    house.start()
    (line,) = resumed(house)
    opened = house.audit("open")[0]
    assert {key: line[key] for key in ("session", "user", "vm", "client")} == {
        key: opened[key] for key in ("session", "user", "vm", "client")
    }
    assert line["channels"] == 1
    assert far.recv(100) == b"meanwhile"
    far.sendall(b"and on")
    assert viewer.recv(100) == b"and on"
    assert gate.process.poll() is None
    assert house.audit("session-end") == []


def test_new_channels_open_in_a_session_that_was_handed_over(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    house.channel(vm)
    die_and_come_again(house)
    resumed(house)
    viewer, far = house.channel(vm, DISPLAY)
    viewer.sendall(b"x")
    assert far.recv(1) == b"x"
    assert [line["channel"] for line in house.audit("channel")] == [1, 2]


def test_twenty_sessions_are_known_again_within_five_seconds(house: House) -> None:
    names = [f"many{number}" for number in range(20)]
    house.write_map(house.user, *names)
    wait_until(lambda: len(house.audit("map")) == 2, "the map")
    ends = []
    others = []
    for name in names:
        vm = house.vm(name)
        other = house.other()
        others.append(other)
        assert other.gate(f"open --json {name}")["event"] == "ready"
        viewer = other.connect()
        ends.append(house.through(viewer, vm))
    house.kill_broker()
    for number, (viewer, _) in enumerate(ends):
        viewer.sendall(b"%02d" % number)
    house.start()
    started = time.monotonic()
    resumed(house, 20)
    assert time.monotonic() - started < 5
    for number, (_, far) in enumerate(ends):
        assert far.recv(10) == b"%02d" % number
    assert house.audit("session-end") == []


def test_session_of_before_can_be_revoked(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    die_and_come_again(house)
    resumed(house)
    house.write_map("nobody-else", "vm1")
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""
    assert gate.exit_code() == 77
    (end,) = wait_until(lambda: house.audit("session-end"), "the end")
    assert end["session"] == house.audit("open")[0]["session"]


def test_right_that_was_taken_away_meanwhile_ends_the_session(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    house.kill_broker()
    house.write_map("nobody-else", "vm1")
    house.start()
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    assert far.recv(1) == b""


def test_seat_is_held_from_the_first_moment_of_the_new_broker(house: House) -> None:
    """Its gate sleeps and has not said a word yet."""
    house.vm("vm1")
    gate = house.open("vm1")
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(house)
    with other_connection(house) as other:
        refused = other.gate("open --json vm1")
        assert refused["code"] == 75
        assert str(refused["reason"]).startswith("'vm1' is in use by you since")
        gate.process.send_signal(signal.SIGCONT)
        resumed(house)
        assert other.gate("open --json vm1")["code"] == 75


@pytest.mark.parametrize("name", ["vm1", "vm2"])
def test_one_session_per_connection_over_a_restart(house: House, name: str) -> None:
    """With ControlMaster, a person can open again before the first gate has come back."""
    house.vm("vm1")
    house.vm("vm2")
    first = house.open("vm1")
    session = session_of(house)
    first.process.send_signal(signal.SIGSTOP)
    die_and_come_again(house)
    refused = house.gate(f"open --json --take-over {name}").says()
    assert (refused["event"], refused["code"]) == ("refused", 64)
    first.process.send_signal(signal.SIGCONT)
    resumed(house)
    house.write_map("nobody-else", "vm1", "vm2")
    assert first.says()["reason"] == "you may no longer use 'vm1': no grant names you"
    (end,) = wait_until(lambda: house.audit("session-end"), "the end")
    assert end["session"] == session


def test_gate_that_died_meanwhile_leaves_the_seat_free(house: House) -> None:
    house.vm("vm1")
    with other_connection(house) as other:
        assert other.gate("open --json vm1")["event"] == "ready"
        house.kill_broker()
    house.start()
    assert house.open("vm1")
    (end,) = house.audit("session-end")
    assert end["reason"] == "the SSH connection is gone"


def test_channel_that_ended_meanwhile_has_its_counts_in_the_log(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    house.channel(vm)
    side, side_far = house.channel(vm, DISPLAY)
    house.kill_broker()
    side.sendall(b"123")
    assert side_far.recv(3) == b"123"
    side.close()
    assert side_far.recv(1) == b""
    side_far.close()
    house.start()
    (end,) = wait_until(lambda: house.audit("channel-end"), "the log line")
    assert end["type"] == "display"
    assert (end["bytes_up"], end["reason"]) == (3, "closed by the viewer")


def test_take_over_of_a_session_not_yet_handed_back(house: House) -> None:
    """Its gate hears of it when it comes."""
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(house)
    with other_connection(house) as other:
        assert other.gate("open --json --take-over vm1")["event"] == "ready"
        gate.process.send_signal(signal.SIGCONT)
        assert "was taken over" in str(gate.says()["reason"])
        assert gate.exit_code() == 75
        assert far.recv(1) == b""


def test_gate_without_a_broker_ends_after_its_grace(house: House) -> None:
    house.kill_broker()
    house.start("--grace", "1")
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    house.kill_broker()
    said = gate.says()
    assert (said["code"], said["reason"]) == (70, "the server's broker has been away for 1 s")
    assert far.recv(1) == b""


def test_socket_on_which_no_broker_ever_answers_is_none(house: House) -> None:
    """As where the service manager listens, and the service does not come up."""
    house.kill_broker()
    house.start("--grace", "1")
    house.vm("vm1")
    gate = house.open("vm1")
    house.kill_broker()
    (house.directory / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(str(house.directory / "control.sock"))
        deaf.listen(8)
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_queue_that_is_full_keeps_no_gate_waiting(house: House) -> None:
    house.kill_broker()
    house.start("--grace", "1")
    house.vm("vm1")
    gate = house.open("vm1")
    house.kill_broker()
    (house.directory / "control.sock").unlink()
    with contextlib.ExitStack() as parts:
        deaf = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        deaf.bind(str(house.directory / "control.sock"))
        deaf.listen(0)
        first = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        first.connect(str(house.directory / "control.sock"))
        assert gate.says()["reason"] == "the server's broker has been away for 1 s"


def test_stopped_broker_leaves_no_record_of_a_session_that_ended(house: House) -> None:
    house.vm("vm1")
    gate = house.open("vm1")
    records = house.directory / "sessions"
    assert [path.name for path in records.iterdir()] == [house.audit("open")[0]["session"]]
    assert records.stat().st_mode & 0o777 == 0o700
    gate.process.terminate()
    wait_until(lambda: not list(records.iterdir()), "the record to go")


@pytest.mark.parametrize("text", ["", "{", "5", '{"v": 1}', '{"v": 99}', "[]", "\xff"])
def test_record_that_is_none_is_removed(house: House, text: str) -> None:
    house.kill_broker()
    (house.directory / "sessions" / "0badbeef").write_text(text)
    house.start()
    assert not (house.directory / "sessions" / "0badbeef").exists()
    assert "no record of a session" in str(house.audit("fault")[-1]["reason"])


def test_record_that_was_never_put_in_place_is_nobodys(house: House) -> None:
    """A broker killed between writing and renaming: the one that is in place counts alone."""
    house.vm("vm1")
    house.open("vm1")
    session = session_of(house)
    house.kill_broker()
    records = house.directory / "sessions"
    stray = records / f".{session}.new"
    stray.write_bytes((records / session).read_bytes())
    house.start()
    resumed(house)
    assert not stray.exists()
    assert house.audit("fault") == []


class Forger:
    """A program of the user's own in the place of a gate, below the same SSH connection."""

    def __init__(self, house: House) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        house.at_the_end(self.sock.close)
        self.sock.settimeout(10)
        self.sock.connect(str(house.directory / "control.sock"))

    def resume(self, session: str, *fds: int) -> dict[str, object]:
        fdpass.send(self.sock, encode({"v": 1, "op": "resume", "session": session}), fds)
        answer = json.loads(self.sock.recv(65536))
        assert isinstance(answer, dict)
        return answer


def session_of(house: House) -> str:
    return str(house.audit("open")[-1]["session"])


@pytest.mark.parametrize("session", ["00000000", "../../x", "", "ABCDEF12"])
def test_resume_of_no_session_is_refused(house: House, session: str) -> None:
    assert Forger(house).resume(session)["event"] == "refused"


def test_resume_of_a_session_that_has_its_gate_is_refused(house: House) -> None:
    house.vm("vm1")
    house.open("vm1")
    answer = Forger(house).resume(session_of(house))
    assert (answer["event"], answer["code"]) == ("refused", 77)


def test_resume_from_another_ssh_connection_is_refused(house: House) -> None:
    """The same user's, and the right id: but not the process that the session is bound to."""
    house.vm("vm1")
    with other_connection(house) as other:
        ready = other.gate("open --json vm1")
        other.stop_gates()
        die_and_come_again(house)
        answer = Forger(house).resume(str(ready["session"]))
        assert (answer["event"], answer["code"]) == ("refused", 77)
        assert answer["reason"] == "this server does not know the session"


@pytest.mark.parametrize("operation", ["whoami", "open", "resume"])
def test_descriptors_beside_a_request_are_refused(house: House, operation: str) -> None:
    """No gate brings any: what the relay moves never was a gate's."""
    assert house.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = house.descriptors(house.broker)
    forger = Forger(house)
    fdpass.send(forger.sock, encode({"v": 1, "op": operation}), (0, 0))
    refused = json.loads(forger.sock.recv(65536))
    assert refused["event"] == "refused"
    assert "too many descriptors" in str(refused["reason"])
    forger.sock.close()
    wait_until(lambda: house.descriptors(house.broker) == before, "them to be closed")


def patched(house: House, change: str) -> None:
    """The broker of now on, with a wait that is shorter."""
    assert lifecycle.COME_BACK == 10
    house.kill_broker()
    house.patch = change
    house.start()


def test_gate_that_does_not_come_back_ends_the_session(house: House) -> None:
    """A hostile one would go on without us; stopped, it cannot even answer."""
    vm = house.vm("vm1")
    gate = house.open("vm1")
    session = session_of(house)
    _, far = house.channel(vm)
    gate.process.send_signal(signal.SIGSTOP)
    patched(house, "lifecycle.COME_BACK = 1")
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: house.audit("session-end"), "the end")
    assert (end["session"], end["reason"]) == (session, "its gate did not come back")
    ends = [(line["session"], line["channel"]) for line in house.audit("channel-end")]
    assert ends == [(session, 1)]
    wait_until(lambda: not house.relay_processes(), "its relay process to end", 2)


def test_session_is_known_before_its_gate_comes_back(house: House) -> None:
    """Seen, counted, and ended by its id."""
    vm = house.vm("vm1")
    gate = house.open("vm1")
    viewer, far = house.channel(vm)
    viewer.sendall(b"12345")
    assert far.recv(5) == b"12345"
    gate.process.send_signal(signal.SIGSTOP)
    die_and_come_again(house)
    resumed(house)
    (row,) = ask_rows(str(house.directory), "sessions")
    assert (row["id"], row["channels"]) == (session_of(house), 1)
    house.write_map("nobody-else", "vm1")
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: house.audit("channel-end"), "the end")
    assert (end["bytes_up"], end["bytes_down"]) == (5, 1)


def test_relay_of_a_session_without_a_record_is_ended(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    _, far = house.channel(vm)
    house.kill_broker()
    (house.directory / "sessions" / session_of(house)).unlink()
    house.start()
    assert far.recv(1) == b""
    wait_until(lambda: not list((house.relay_dir / "sessions").iterdir()), "its socket to go")


def test_relay_process_that_died_meanwhile_ends_the_session(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    house.kill_broker()
    (pid,) = house.relay_processes()
    os.kill(pid, signal.SIGKILL)
    assert far.recv(1) == b""
    house.start()
    assert gate.says()["code"] == 77
    (end,) = house.audit("session-end")
    assert "relay does not answer" in str(end["reason"])
    assert not list((house.relay_dir / "sessions").iterdir())


def test_relay_process_that_does_not_answer_the_next_broker_is_killed(house: House) -> None:
    """We have no duplicate of its VM's ends, so its end is the only cut."""
    vm = house.vm("vm1")
    house.open("vm1")
    _, far = house.channel(vm)
    (pid,) = house.relay_processes()
    os.kill(pid, signal.SIGSTOP)
    house.kill_broker()
    house.start()
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: house.audit("session-end"), "the end")
    assert end["reason"] == "the server's relay does not answer"


def test_impostor_at_a_session_s_socket_is_not_believed(house: House) -> None:
    """Another process of the relay's user listens there: it is not the one on record."""
    vm = house.vm("vm1")
    house.open("vm1")
    _, far = house.channel(vm)
    house.kill_broker()
    path = house.relay_dir / "sessions" / session_of(house)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(str(path))
        impostor.listen(4)
        house.start()
        assert far.recv(1) == b"", "and the real one is killed"
        (end,) = wait_until(lambda: house.audit("session-end"), "the end")
        assert end["reason"] == "another process listens for the session"


def test_two_brokers_in_a_row_are_both_survived(house: House) -> None:
    vm = house.vm("vm1")
    house.open("vm1")
    viewer, far = house.channel(vm)
    for count in (1, 2, 3):
        viewer.sendall(b"x")
        die_and_come_again(house)
        resumed(house, count)
        assert far.recv(1) == b"x"
    assert house.audit("session-end") == []


def test_sockets_that_the_manager_listens_on_are_used(house: House) -> None:
    """As with socket activation: no moment in which a gate finds nobody."""
    house.kill_broker()
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    house.at_the_end(control.close)
    path = house.directory / "control.sock"
    path.unlink()
    control.bind(str(path))
    control.listen(8)
    inode = path.stat().st_ino
    notify = house.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify))
        manager.settimeout(5)
        house.start_under(notify, [("spicetunneld.socket", control.fileno())])
        assert manager.recv(100) == b"READY=1"
    assert path.stat().st_ino == inode
    assert house.gate("list --json").says()["event"] == "vms"
