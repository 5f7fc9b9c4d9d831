"""The broker dies and another comes: sessions run on, are handed back, and are as before."""

import contextlib
import json
import os
import signal
import socket
import struct
import time

import pytest

from spicetunnel.broker import orphans
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


def test_queue_that_is_full_stops_no_traffic(house: House) -> None:
    """A gate that waited for its place in it could not relay meanwhile."""
    vm = house.vm("vm1")
    house.open("vm1")
    viewer, far = house.channel(vm)
    house.kill_broker()
    (house.directory / "control.sock").unlink()
    with contextlib.ExitStack() as parts:
        deaf = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        deaf.bind(str(house.directory / "control.sock"))
        deaf.listen(0)
        first = parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        first.connect(str(house.directory / "control.sock"))
        for _ in range(20):
            viewer.sendall(b"x")
            assert far.recv(1) == b"x"
            time.sleep(0.1)


def test_stopped_broker_leaves_no_record_of_a_session_that_ended(house: House) -> None:
    house.vm("vm1")
    gate = house.open("vm1")
    records = house.directory / "sessions"
    assert [path.name for path in records.iterdir()] == [house.audit("open")[0]["session"]]
    assert records.stat().st_mode & 0o777 == 0o700
    gate.process.terminate()
    wait_until(lambda: not list(records.iterdir()), "the record to go")


@pytest.mark.parametrize("text", ["", "{", '{"v": 1}', '{"v": 99}', "[]", "\xff"])
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

    def resume(self, session: str, *fds: int, **more: object) -> dict[str, object]:
        about: dict[str, object] = {"v": 1, "op": "resume", "session": session}
        channels = {str(number): [0, 0] for number in range(1, len(fds) + 1)}
        message = {**about, "channels": channels, "closed": [], **more}
        fdpass.send(self.sock, encode(message), fds)
        answer = json.loads(self.sock.recv(65536))
        assert isinstance(answer, dict)
        return answer


def session_of(house: House) -> str:
    return str(house.audit("open")[-1]["session"])


@pytest.mark.parametrize("session", ["00000000", "../../x", "", "ABCDEF12"])
def test_resume_of_no_session_is_refused(house: House, session: str) -> None:
    assert Forger(house).resume(session)["event"] == "refused"


def test_resume_of_a_session_that_is_no_orphan_is_refused(house: House) -> None:
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


def test_resume_with_sockets_of_ones_own_gains_nothing(house: House) -> None:
    """Those that the broker never gave are closed; what it gave is cut where it is missing."""
    vm = house.vm("vm1")
    with other_connection(house) as other:
        ready = other.gate("open --json vm1")
        _, far = house.through(other.connect(), vm)
        other.stop_gates()
        die_and_come_again(house)
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        answer = other.forge(ready["session"], [ours.fileno(), null])
        assert answer["event"] == "resumed"
        ours.close()
        assert theirs.recv(1) == b""
        theirs.close()
        (end,) = wait_until(lambda: house.audit("channel-end"), "the log line")
        assert end["reason"] == "not handed back"
        os.close(null)
        far.close()


def test_resume_with_nonsense_about_channels_ends_the_session(house: House) -> None:
    house.vm("vm1")
    with other_connection(house) as other:
        ready = other.gate("open --json vm1")
        other.stop_gates()
        die_and_come_again(house)
        answer = other.forge(ready["session"], [], channels="none")
        assert answer["event"] == "resumed"
        (end,) = wait_until(lambda: house.audit("session-end"), "the end")
        assert "is not an object" in str(end["reason"])


def test_descriptors_beside_another_request_are_refused(house: House) -> None:
    assert house.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = house.descriptors(house.broker)
    forger = Forger(house)
    fdpass.send(forger.sock, encode({"v": 1, "op": "whoami"}), (0, 0))
    refused = json.loads(forger.sock.recv(65536))
    assert (refused["event"], refused["reason"]) == ("refused", "'whoami' came with descriptors")
    forger.sock.close()
    wait_until(lambda: house.descriptors(house.broker) == before, "them to be closed")


class Manager:
    """In the place of systemd, which needs to be PID 1: keeps what it is told to keep, and passes
    it to the next broker as sd_listen_fds(3) says. Not a fake of ours in the program: the real one
    does the same to NOTIFY_SOCKET and fd 3."""

    def __init__(self, house: House) -> None:
        self.path = house.directory / "notify"
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        house.at_the_end(self.close)
        self.sock.bind(str(self.path))
        self.sock.settimeout(5)
        self.kept: list[tuple[str, int]] = []
        self.said: list[str] = []

    def close(self) -> None:
        self.sock.close()
        fdpass.close_all([fd for _, fd in self.kept])

    def hear(self) -> str:
        """One message, obeyed."""
        data, control, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(4))
        said = data.decode()
        name = said.rpartition("FDNAME=")[2]
        if said.startswith("FDSTORE=1"):
            self.kept += [(name, struct.unpack("i", each)[0]) for _, _, each in control]
        elif said.startswith("FDSTOREREMOVE=1"):
            for each in [each for each in self.kept if each[0] == name]:
                os.close(each[1])
                self.kept.remove(each)
        self.said.append(said)
        return said


def test_gate_that_does_not_come_back_is_cut_by_what_the_manager_kept(house: House) -> None:
    """A hostile gate would go on without us; stopped, it cannot even answer."""
    house.kill_broker()
    manager = Manager(house)
    house.start_under(manager.path, [])
    assert manager.hear() == "READY=1"
    vm = house.vm("vm1")
    gate = house.open("vm1")
    session = session_of(house)
    _, far = house.channel(vm)
    assert manager.hear() == f"FDSTORE=1\nFDNAME={session}"
    gate.process.send_signal(signal.SIGSTOP)
    house.kill_broker()
    assert orphans.HAND_BACK == 10
    house.patch = "orphans.HAND_BACK = 1"
    house.start_under(manager.path, manager.kept)
    assert far.recv(1) == b""
    (end,) = wait_until(lambda: house.audit("session-end"), "the end")
    assert (end["session"], end["reason"]) == (session, "its gate did not hand it back")
    ends = [(line["session"], line["channel"]) for line in house.audit("channel-end")]
    assert ends == [(session, 1)]


def test_what_the_manager_keeps_is_let_go_with_the_session(house: House) -> None:
    house.kill_broker()
    manager = Manager(house)
    house.start_under(manager.path, [])
    manager.hear()
    vm = house.vm("vm1")
    gate = house.open("vm1")
    house.channel(vm)
    manager.hear()
    assert len(manager.kept) == 1
    gate.process.terminate()
    assert manager.hear() == f"FDSTOREREMOVE=1\nFDNAME={session_of(house)}"
    assert manager.kept == []


def test_what_the_manager_kept_of_a_session_without_a_record_is_cut(house: House) -> None:
    house.kill_broker()
    manager = Manager(house)
    ours, theirs = socket.socketpair()
    house.at_the_end(ours.close)
    house.start_under(manager.path, [("0badbeef", theirs.fileno())])
    theirs.close()
    ours.settimeout(5)
    assert ours.recv(1) == b""
    assert manager.hear() == "FDSTOREREMOVE=1\nFDNAME=0badbeef"


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
    manager = Manager(house)
    house.start_under(manager.path, [("spicetunneld.socket", control.fileno())])
    assert path.stat().st_ino == inode
    assert house.gate("list --json").says()["event"] == "vms"
