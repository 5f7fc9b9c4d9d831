"""Whatever part of a session dies, nothing of the session is left after two seconds."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import GATE, processes, words
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

SECONDS = 2


class Session:
    """alice's session at vm1; the viewer shows the VM's screen."""

    def __init__(self, pc: Client, client: Process, vm: Vm, stage: Stage) -> None:
        self.pc = pc
        self.client = client
        self.vm = vm
        self.stage = stage
        self.mark = 0

    def pid_of(self, program: str) -> int:
        """The id of alice's only process whose command line matches `program`."""
        found = [pid for pid in processes({self.pc.person.uid}) if re.search(program, words(pid))]
        assert len(found) == 1, [words(pid) for pid in processes({self.pc.person.uid})]
        return found[0]

    def left(self) -> list[str]:
        """What is left of the session: processes, files, connections to the VM."""
        alice = self.pc.person
        left = [f"process {words(pid)}" for pid in processes({alice.uid})]
        left += [f"file {path}" for path in private_files(self.pc.runtime_dir)]
        left += [f"file {path}" for path in private_files_in_tmp(alice)]
        left += [f"relay process {pid}" for pid in self.stage.relay.sessions()]
        if self.vm.alive() and self.vm.spice_clients():
            left.append(f"{self.vm.spice_clients()} connections to the VM")
        return left

    def assert_nothing_left(self) -> None:
        wait_until(
            lambda: not self.left(), SECONDS, lambda: f"nothing to be left, not {self.left()}"
        )
        if self.stage.broker.alive():
            self.stage.broker.wait_audit(
                lambda line: line["event"] == "session-end", SECONDS, since=self.mark
            )


def private_files(directory: Path) -> list[Path]:
    # GTK and dconf keep caches there, which do not belong to the session.
    kept = {"dconf", "at-spi"}
    return [path for path in directory.iterdir() if path.name not in kept]


def private_files_in_tmp(person: Person) -> list[Path]:
    found = []
    for path in Path("/tmp").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process has deleted it
            if path.lstat().st_uid == person.uid:
                found.append(path)
    return found


@pytest.fixture
def options() -> list[str]:
    """spice-connect's options; a test can replace them by a mark."""
    return []


#: Without it, the client would connect again: see test_reconnect.py.
no_reconnect = pytest.mark.parametrize("options", [["--no-reconnect"]], ids=[""])


@pytest.fixture
def session(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen, options: list[str]
) -> Iterator[Session]:
    pc = stage.client(alice).at(screen)
    wait_until(
        lambda: not list(processes({alice.uid})),
        5,
        lambda: f"the last test's processes to end: {[words(p) for p in processes({alice.uid})]}",
    )
    mark = broker.mark()
    with pc.spice_connect(*options, "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        session = Session(pc, client, vm1, stage)
        session.mark = mark
        assert len(session.left()) > 4, "left() must find the parts of a running session"
        yield session


@pytest.mark.usefixtures("transport")
def test_viewer_closed_by_the_user(session: Session, screen: Screen) -> None:
    screen.close_window(screen.wait_for_window("book-keeping"))
    session.assert_nothing_left()
    assert session.client.wait() == 0
    assert session.client.err() == ""


@pytest.mark.usefixtures("transport")
def test_ctrl_c(session: Session) -> None:
    session.client.ctrl_c()
    session.assert_nothing_left()
    assert session.client.wait() == 130


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_closed_or_logout(session: Session, how: signal.Signals) -> None:
    session.client.signal(how)
    session.assert_nothing_left()
    assert session.client.wait() == 128 + how


@pytest.mark.usefixtures("transport")
def test_kill_9_of_the_client(session: Session) -> None:
    session.client.kill()
    session.assert_nothing_left()


def test_kill_9_of_the_viewer(session: Session) -> None:
    os.kill(session.pid_of("remote-viewer"), signal.SIGKILL)
    session.assert_nothing_left()
    assert session.client.wait() == 69


@pytest.mark.usefixtures("transport")
def test_kill_9_of_ssh(session: Session) -> None:
    os.kill(session.pid_of("ExitOnForwardFailure"), signal.SIGKILL)
    session.assert_nothing_left()
    assert session.client.wait() == 69
    assert session.client.err() != ""


@no_reconnect
def test_kill_9_of_the_gate(session: Session) -> None:
    os.kill(session.pid_of(GATE), signal.SIGKILL)
    session.assert_nothing_left()
    assert session.client.wait() == 69


@pytest.mark.usefixtures("transport")
@no_reconnect
def test_kill_9_of_the_connections_sshd(session: Session) -> None:
    os.kill(session.pid_of("sshd: st-alice"), signal.SIGKILL)
    session.assert_nothing_left()
    assert session.client.wait() == 69


@no_reconnect
def test_kill_9_of_qemu(session: Session) -> None:
    session.vm.kill()
    session.assert_nothing_left()
    assert session.client.wait() == 69
    assert "'vm1' has stopped" in session.client.err()


def test_kill_9_of_the_broker(session: Session, screen: Screen) -> None:
    """The session goes on, and ends cleanly when its user ends it. Only its relay process stays,
    until a new broker has logged the session's end."""
    session.stage.broker.kill()
    before = session.vm.look()
    screen.type("still alive", screen.wait_for_window("book-keeping"))
    wait_until(lambda: session.vm.look() != before, 10, "the typed text to reach the VM")
    assert session.client.alive()
    screen.close_window(screen.wait_for_window("book-keeping"))
    (waiting,) = session.stage.relay.sessions()
    wait_until(
        lambda: session.left() == [f"relay process {waiting}"],
        SECONDS,
        "only the relay process to be left",
    )
    assert session.client.wait() == 0
    session.stage.broker.start()
    session.assert_nothing_left()


def test_frozen_ssh_on_the_users_side(session: Session) -> None:
    """ssh is stopped, so it does not react to SIGTERM; then the client is killed."""
    os.kill(session.pid_of("ExitOnForwardFailure"), signal.SIGSTOP)
    session.client.kill()
    session.assert_nothing_left()


@pytest.mark.usefixtures("transport")
def test_socket_and_its_directory_are_accessible_to_their_user_only(session: Session) -> None:
    alice = session.pc.person
    (directory,) = private_files(session.pc.runtime_dir)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_uid == alice.uid
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert len(str(path)) <= 107
