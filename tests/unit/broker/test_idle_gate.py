"""A gate with nothing to say is a smaller program in the same process: gate/idle.py."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.gate import idle
from tests.unit.broker.server import Gate, Server, wait_until
from tests.unit.broker.test_oversight import kick


def private_memory(pid: int) -> int:
    """KiB that it shares with no other process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@functools.cache
def memory_of_python() -> int:
    """The same of an interpreter that waits for input."""
    code = "import select; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        memory = private_memory(process.pid)
        process.kill()
    return memory


def until_idle(gate: Gate) -> None:
    """Wait until it runs idle.py, and has loaded nothing else."""
    pid, most = gate.process.pid, memory_of_python() * 1.2
    program = Path(f"/proc/{pid}/cmdline")
    wait_until(
        lambda: "idle.py" in program.read_text() and private_memory(pid) < most,
        "the gate to be idle, and as small as Python",
    )


@pytest.fixture
def gate(server: Server) -> Gate:
    """An idle one, with its session ready."""
    server.vm("vm1")
    gate = server.open("vm1")
    until_idle(gate)
    return gate


def test_idle_gate_says_the_end(server: Server, gate: Gate) -> None:
    kick(server, vm="vm1", reason="maintenance")
    said = gate.says()
    assert (said["event"], said["code"]) == ("end", 77)
    assert "maintenance" in str(said["reason"])
    assert gate.exit_code() == 77


def test_idle_gate_finds_each_next_broker(server: Server) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    for resumed in (1, 2):
        until_idle(gate)
        server.kill_broker()
        server.start()
        wait_until(lambda: server.audit("resume")[resumed - 1 :], "the resuming")  # noqa: B023
    until_idle(gate)
    assert len({line["session"] for line in server.audit() if "session" in line}) == 1


def test_idle_gate_ends_with_its_client(server: Server, gate: Gate) -> None:
    assert gate.process.stdout
    gate.process.stdout.close()
    assert gate.exit_code() == 0
    wait_until(lambda: server.audit("session-end"), "the end of the session")


def test_idle_gate_waits_for_the_vm(server: Server) -> None:
    gate = server.gate("open --json --wait vm1")
    assert gate.says()["event"] == "waiting"
    until_idle(gate)
    server.vm("vm1")
    assert gate.says()["event"] == "ready"


def test_idle_gate_cannot_be_interrupted(server: Server, gate: Gate) -> None:
    """A person's Ctrl-C is for the client, whose end ends the gate."""
    gate.process.send_signal(signal.SIGINT)
    kick(server, vm="vm1", reason="maintenance")
    assert gate.says()["event"] == "end"


class Woken:
    """idle.py by itself, with the test as its broker."""

    def __init__(self, run_dir: Path, program: str, *arguments: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(run_dir / "control.sock"))
        self._listener.listen()
        self._listener.settimeout(10)
        self.broker, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        state = (str(theirs.fileno()), "0123abcd", "60")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", program, *state, "--run-dir", str(run_dir), *arguments],
            env={"SSH_ORIGINAL_COMMAND": "open vm1", "SSH_CONNECTION": "192.0.2.7 5 192.0.2.1 22"},
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()

    def comes_back(self) -> dict[str, object]:
        """The first message of the connection that it makes after it lost its broker."""
        self.broker.close()
        connection, _ = self._listener.accept()
        with connection:
            message = json.loads(connection.recv(10_000))
            assert isinstance(message, dict)
            return message

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.broker.close()
        self._listener.close()


@pytest.fixture
def woken(tmp_path: Path) -> Iterator[Woken]:
    woken = Woken(tmp_path, idle.__file__, "--as", "charlie")
    yield woken
    woken.close()


def test_woken_gate_asks_for_the_same_person_and_session(woken: Woken) -> None:
    assert woken.comes_back() == {
        "v": 1,
        "op": "resume",
        "from": "192.0.2.7 5 192.0.2.1 22",
        "as": "charlie",
        "session": "0123abcd",
    }


def test_woken_gate_keeps_no_descriptor_for_a_child(woken: Woken) -> None:
    """Close-on-exec again, as before it was idle."""
    woken.broker.send(json.dumps({"event": "notice", "reason": "soon", "hint": ""}).encode())
    assert woken.process.stderr
    assert woken.process.stderr.readline() == b"spicetunnel: soon\n"
    (fd,) = (
        entry.name
        for entry in Path(f"/proc/{woken.process.pid}/fd").iterdir()
        if "socket" in os.readlink(entry)
    )
    info = Path(f"/proc/{woken.process.pid}/fdinfo/{fd}").read_text()
    flags = int(info.split("flags:")[1].split()[0], 8)
    assert flags & os.O_CLOEXEC


def test_gate_removed_while_it_was_idle(tmp_path: Path) -> None:
    program = tmp_path / "lib" / "spicetunnel" / "gate" / "idle.py"
    program.parent.mkdir(parents=True)
    shutil.copy(idle.__file__, program)
    woken = Woken(tmp_path, str(program))
    woken.broker.close()
    try:
        _, said = woken.process.communicate(timeout=10)
        assert woken.process.returncode == os.EX_SOFTWARE
        assert said == (
            b"spicetunnel: the server's gate was removed or replaced\nhint: connect again\n"
        )
    finally:
        woken.close()
