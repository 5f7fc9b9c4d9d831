"""A relay as a real process of ours, and the test in the broker's place."""

import contextlib
import getpass
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spicetunnel.common import fdpass
from spicetunnel.common.processes import peer_of
from spicetunnel.common.protocol import Message, decode, encode
from tests.stage.sockets import is_listening
from tests.unit.broker.server import wait_until


class Speaker:
    """A connection of the broker's."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self.fds: list[int] = []

    def say(self, message: Message, *fds: int) -> None:
        fdpass.send(self.sock, encode(message), fds)

    def hear(self) -> Message:
        """The next message; empty at the end."""
        packet, fds = fdpass.receive(self.sock, 253)
        self.fds += fds
        return decode(packet) if packet else {}

    def hear_all(self) -> list[Message]:
        """All there is to the end."""
        return list(iter(self.hear, {}))

    def close(self) -> None:
        self.sock.close()
        fdpass.close_all(self.fds)
        self.fds = []


class Relay:
    def __init__(self, directory: Path, parts: contextlib.ExitStack) -> None:
        self.directory = directory
        self.log_file = directory / "log"
        self._parts = parts
        self.start()

    def start(self, before: tuple[str, ...] = ()) -> None:
        """`before`: a program, with its arguments, that becomes the relay."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([*before, *self.argv()], stderr=log)
        self._parts.callback(self.stop)
        wait_until(lambda: is_listening(self.directory / "relay.sock"), "the relay to listen")

    def argv(self, user: str = "") -> list[str]:
        places = ["--dir", str(self.directory), "--broker-user", user or getpass.getuser()]
        return [sys.executable, "-m", "spicetunnel.relay", *places]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def at_the_end(self, callback: Callable[[], object]) -> None:
        self._parts.callback(callback)

    def log(self, event: str) -> list[Message]:
        lines = map(json.loads, self.log_file.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def ask(self) -> Speaker:
        speaker = Speaker(self.directory / "relay.sock")
        self._parts.callback(speaker.close)
        return speaker

    def begin(self, session: str = "0badbeef", grace: int = 60) -> Speaker:
        """A session's process, which has said that it serves."""
        speaker = self.ask()
        speaker.say({"v": 1, "op": "begin", "session": session, "grace": grace})
        hello = speaker.hear()
        assert hello["event"] == "begun", hello
        return speaker

    def again(self, session: str = "0badbeef") -> Speaker:
        """The next broker's connection to it."""
        speaker = self._connected(session)
        speaker.say({"v": 1, "op": "attach"})
        return speaker

    def _connected(self, session: str) -> Speaker:
        speaker = Speaker(self.directory / "sessions" / session)
        self._parts.callback(speaker.close)
        return speaker

    def pid(self, session: str = "0badbeef") -> int:
        """Of the process: it takes no connection for the broker's that says nothing."""
        speaker = self._connected(session)
        try:
            return peer_of(speaker.sock)[0]
        finally:
            speaker.close()

    def channel(
        self, broker: Speaker, number: int = 1, *, hold: bool = False
    ) -> tuple[socket.socket, socket.socket]:
        """The far ends of a new channel: the viewer's and the VM's."""
        viewer, near_viewer = socket.socketpair()
        vm, near_vm = socket.socketpair()
        message: Message = {"op": "channel", "channel": number, "hold": hold}
        broker.say(message, near_viewer.fileno(), near_vm.fileno())
        near_viewer.close()
        near_vm.close()
        for end in (viewer, vm):
            end.settimeout(10)
            self._parts.callback(end.close)
        viewer.sendall(b"!")
        assert vm.recv(1) == b"!"
        return viewer, vm


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return b") Z " not in file.read()
    except OSError:
        return False


@pytest.fixture
def relay() -> Iterator[Relay]:
    with (
        tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory,
        contextlib.ExitStack() as parts,
    ):
        os.chmod(directory, 0o750)
        yield Relay(Path(directory), parts)
