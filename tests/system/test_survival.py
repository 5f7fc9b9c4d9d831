"""Broker and relay are killed, stopped and restarted under live sessions: after a kill or restart,
no byte is lost, no session ends, and the successors can cut every session."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.stage.rawvm import RawVm, drain, gate_pid, pour, raw_map, raw_session
from tests.stage.stage import MAP, NO_VMS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    import socket

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

MIB = 1024**2
MANY = [f"many{number}" for number in range(20)]


def resumed(broker: Broker, since: int) -> list[str]:
    return [str(x["session"]) for x in broker.audit(since) if x["event"] == "resume"]


def test_broker_killed_three_times_under_a_running_transfer_loses_no_byte(
    stage: Stage, broker: Broker, alice: Person
) -> None:
    assert stage.set_map(raw_map(MAP, "raw"))
    start = broker.mark()
    with raw_session(stage, alice, "raw") as raw:
        viewer, vm = raw.channel()
        digests: dict[str, str] = {}
        jobs = [
            threading.Thread(target=pour, args=(viewer, 512 * MIB, 1, digests, "sent up")),
            threading.Thread(target=pour, args=(vm, 512 * MIB, 2, digests, "sent down")),
            threading.Thread(target=drain, args=(vm, digests, "came up")),
            threading.Thread(target=drain, args=(viewer, digests, "came down")),
        ]
        for job in jobs:
            job.start()
        # In this thread: a child of the stage dies with the thread that started it.
        die_and_come_again(broker, 3, jobs[0])
        for job in jobs:
            job.join(300)
        assert digests["sent up"] == digests["came up"]
        assert digests["sent down"] == digests["came down"]
    end = broker.wait_audit(lambda x: x["event"] == "channel-end", since=start)
    assert (end["bytes_up"], end["bytes_down"]) == (512 * MIB, 512 * MIB + 1)


def die_and_come_again(broker: Broker, times: int, busy: threading.Thread) -> None:
    for _ in range(times):
        time.sleep(0.2)
        mark = broker.mark()
        assert busy.is_alive(), "the transfer was over too soon to prove anything"
        broker.kill()
        broker.restart()
        wait_until(lambda at=mark: resumed(broker, at), 5, "the session to be resumed")  # type: ignore[misc]


class Talk:
    """Traffic on one channel until `stop`; each word is checked."""

    def __init__(self, ends: tuple[socket.socket, socket.socket]) -> None:
        self.viewer, self.vm = ends
        self.words = 0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                word = b"%015d\n" % number
                for near, far in ((self.viewer, self.vm), (self.vm, self.viewer)):
                    near.sendall(word)
                    assert received(far) == word
                self.words += 1
                time.sleep(0.01)
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert self.failure is None
        assert self.words > 10


def received(end: socket.socket) -> bytes:
    data = b""
    while len(data) < 16:
        part = end.recv(16 - len(data))
        assert part, "cut off"
        data += part
    return data


@pytest.mark.parametrize("killed", ["the broker", "the relay's parent", "both at once"])
def test_kill_under_twenty_live_sessions(
    stage: Stage, broker: Broker, alice: Person, killed: str
) -> None:
    """Every session goes on, a new broker resumes all, and then it can cut each."""
    with_broker = killed != "the relay's parent"
    assert stage.set_map(raw_map(MAP, *MANY, "raw"))
    with contextlib.ExitStack() as parts:
        raws: list[RawVm] = [parts.enter_context(raw_session(stage, alice, name)) for name in MANY]
        talks = [Talk(raw.channel()) for raw in raws]
        sessions = sorted(stage.relay.sessions())
        mark = broker.mark()
        if with_broker:
            broker.kill()
        if killed != "the broker":
            stage.relay.kill()
        before = [talk.words for talk in talks]
        wait_until(
            lambda: all(talk.words > words for talk, words in zip(talks, before, strict=True)),
            20,
            "traffic in every session",
        )
        if not stage.relay.alive():
            stage.relay.start()
        if with_broker:
            broker.start()
            wait_until(lambda: len(resumed(broker, mark)) == 20, 5, "all sessions to be resumed")
            assert len(set(resumed(broker, mark))) == 20
        with raw_session(stage, alice, "raw"):  # a new session can be opened too
            assert len(stage.relay.sessions()) == 21
        for talk in talks:
            talk.stop()
        wait_until(
            lambda: sorted(stage.relay.sessions()) == sessions, 5, "only the twenty processes"
        )
        assert len([x for x in broker.audit(mark) if x["event"] == "session-end"]) == 1
        stage.write_map(MAP)
        saved = time.monotonic()
        for raw in raws:
            assert raw.ends[-1].recv(1) == b""
        assert time.monotonic() - saved < 5, "every session must be cut"
        wait_until(lambda: not stage.relay.sessions(), 5, "their processes to end")


def test_stopping_the_relay_ends_every_session_and_says_so(
    stage: Stage, broker: Broker, alice: Person
) -> None:
    assert stage.set_map(raw_map(MAP, "raw"))
    mark = broker.mark()
    with raw_session(stage, alice, "raw") as raw:
        viewer, vm = raw.channel()
        viewer.sendall(b"12345")
        assert vm.recv(5) == b"12345"
        stage.relay.stop()
        assert vm.recv(1) == b""
        viewer.close()  # ssh waits for it to end
        assert raw.ssh.wait(5) == 70
        assert "the server's relay was stopped" in raw.ssh.err()
        end = broker.wait_audit(lambda x: x["event"] == "channel-end", since=mark)
        assert (end["bytes_up"], end["reason"]) == (5, "the server's relay was stopped")
        with stage.gate_ssh(alice, "open vm1") as refused:
            assert refused.wait() in {69, 70}
    stage.relay.start()


def test_relay_process_that_dies_ends_its_own_session_only(
    stage: Stage, broker: Broker, alice: Person
) -> None:
    assert stage.set_map(raw_map(MAP, *MANY[:2]))
    mark = broker.mark()
    with raw_session(stage, alice, MANY[0]) as first:
        (pid,) = stage.relay.sessions()
        with raw_session(stage, alice, MANY[1]) as second:
            viewer, lost = first.channel()
            talk = Talk(second.channel())
            os.kill(pid, signal.SIGKILL)
            assert lost.recv(1) == b""
            viewer.close()  # ssh waits for it to end
            assert first.ssh.wait(5) == 70
            assert "the server's relay has lost the session" in first.ssh.err()
            before = talk.words
            wait_until(lambda: talk.words > before + 10, 20, "traffic in the other session")
            talk.stop()
    ended = broker.wait_audit(lambda x: x["event"] == "session-end", since=mark)
    assert ended["vm"] == MANY[0]


def test_viewer_survives_a_restart_of_the_broker_and_can_be_cut_after_it(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """The broker gets SIGTERM and starts again, as with `systemctl restart`."""
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        mark = broker.mark()
        broker.restart()
        wait_until(lambda: resumed(broker, mark), 5, "the session to be resumed")
        before = vm1.look()
        screen.type("still here", screen.wait_for_window("book-keeping"))
        wait_until(lambda: vm1.look() != before, 10, "the typed text to reach the VM")
        assert client.err() == ""
        assert stage.set_map(NO_VMS)
        assert client.wait(2) == 77
    vm1.wait_for_no_client()


def test_session_ends_and_frees_its_seat_if_its_gate_is_stopped_over_a_restart(
    stage: Stage, broker: Broker, alice: Person, carol: Person, vm1: Vm
) -> None:
    with stage.gate_ssh(alice, "open vm1") as ssh:
        ssh.says("vm1 is ready")
        gate = gate_pid(alice)
        os.kill(gate, signal.SIGSTOP)
        mark = broker.mark()
        broker.kill()
        broker.restart()
        with stage.gate_ssh(carol, "open vm1") as busy:
            assert busy.wait() == 75
        end = broker.wait_audit(lambda x: x["event"] == "session-end", 15, since=mark)
        assert end["reason"] == "its gate did not come back"
        with stage.gate_ssh(carol, "open vm1") as free:
            free.says("vm1 is ready")
        os.kill(gate, signal.SIGCONT)
        assert ssh.wait(5) == 77
        assert "this server does not know the session" in ssh.err()
