"""A broker and its gates as real processes of one user, without sshd and without root.

The test's own process stands where sshd's process of one SSH connection stands: it is the gate's
parent, and it connects to tunnel.sock. The VM is a plain socket that the test answers itself.
(The same path with real sshd, ssh and QEMU is in tests/system and tests/refusals.)
"""

import contextlib
import getpass
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

MAIN, DISPLAY = 1, 2
T = TypeVar("T")


def wait_until(look: Callable[[], T], what: str, seconds: float = 10) -> T:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return found


def link(kind: int = MAIN, connection_id: int = 0, number: int = 0) -> bytes:
    body = struct.pack("<IBBIII", connection_id, kind, number, 0, 0, 18)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body


class Vm:
    """A listening socket in place of QEMU; `accept` gives the broker's next connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listen()

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        self.listener.settimeout(10)

    def accept(self) -> socket.socket:
        """The next channel. The broker's short looks whether we listen are passed over."""
        while True:
            connection, _ = self.listener.accept()
            connection.settimeout(10)
            if connection.recv(1, socket.MSG_PEEK):
                return connection
            connection.close()

    def switch_off(self) -> None:
        self.listener.close()
        self.path.unlink()


class Gate:
    """A gate with its output read line by line."""

    def __init__(self, run_dir: Path, command: str) -> None:
        environment = {
            "SSH_ORIGINAL_COMMAND": command,
            "SSH_CONNECTION": "192.0.2.7 5 192.0.2.1 22",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spicetunnel.gate", "--run-dir", str(run_dir)],
            env={"PYTHONPATH": os.pathsep.join(sys.path), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> dict[str, object]:
        """Its next line, as --json prints it."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def exit_code(self) -> int:
        return self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


class House:
    """Everything of one test, below one short directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.map = directory / "vms.yaml"
        self.log_file = directory / "broker.log"
        self._parts = contextlib.ExitStack()
        self.user = getpass.getuser()
        self.vms: dict[str, Vm] = {}
        self.write_map(self.user, "vm1", "vm2")

    def write_map(self, user: str, *names: str, grant: str = "") -> None:
        lines = ["vms:"]
        for name in names:
            lines += [
                f"  {name}:",
                f"    title: the {name}",
                f"    socket: {self.directory}/{name}",
            ]
            lines += ["    allow:", f"      - {{user: {user}{grant}}}"]
        self.map.write_text("\n".join([*lines, ""]))

    def start(self) -> None:
        log = self._parts.enter_context(self.log_file.open("ab"))
        places = ["--map", str(self.map), "--run-dir", str(self.directory)]
        program = [sys.executable, "-m", "spicetunnel.broker"]
        self.broker = subprocess.Popen([*program, *places], stderr=log)
        self._parts.callback(self._stop_broker)
        wait_until(lambda: any(each["event"] == "start" for each in self.audit()), "the broker")

    def _stop_broker(self) -> None:
        self.broker.kill()
        self.broker.wait()

    def audit(self, event: str = "") -> list[dict[str, object]]:
        lines = map(json.loads, self.log_file.read_text().splitlines())
        return [line for line in lines if event in {"", line["event"]}]

    def vm(self, name: str) -> Vm:
        self.vms[name] = Vm(self.directory / name)
        self._parts.callback(self.vms[name].listener.close)
        return self.vms[name]

    def gate(self, command: str) -> Gate:
        gate = Gate(self.directory, command)
        self._parts.callback(gate.close)
        return gate

    def open(self, name: str, *options: str) -> Gate:
        """A gate with its session ready."""
        gate = self.gate(" ".join(["open --json", *options, name]))
        ready = gate.says()
        assert ready["event"] == "ready", ready
        return gate

    def connect(self) -> socket.socket:
        """What sshd does for a forwarded connection."""
        sock = socket.socket(socket.AF_UNIX)
        self._parts.callback(sock.close)
        sock.settimeout(15)
        sock.connect(str(self.directory / "tunnel.sock"))
        return sock

    def channel(self, vm: Vm, kind: int = MAIN) -> tuple[socket.socket, socket.socket]:
        """A channel through the house, in the gate's hands: the viewer's end and the VM's."""
        viewer = self.connect()
        wanted = link(kind, 0 if kind == MAIN else 7)
        viewer.sendall(wanted)
        far = vm.accept()
        self._parts.callback(far.close)
        assert far.recv(100) == wanted
        far.sendall(b"!")
        assert viewer.recv(1) == b"!"
        return viewer, far

    def descriptors(self, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    def close(self) -> None:
        self._parts.close()


@contextlib.contextmanager
def other_connection(house: House) -> Iterator["OtherConnection"]:
    connection = OtherConnection(house)
    try:
        yield connection
    finally:
        connection.close()


class OtherConnection:
    """A second SSH connection of the same user: a process beside the test's, that starts a gate
    and connects to the tunnel when told to. It passes both back to the test."""

    def __init__(self, house: House) -> None:
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            self._serve(house, theirs)
            os._exit(0)
        theirs.close()

    def _serve(self, house: House, orders: socket.socket) -> None:
        gates = []
        while order := orders.recv(200).decode():
            if order == "connect":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(house.directory / "tunnel.sock"))
                socket.send_fds(orders, [b"x"], [sock.fileno()])
                sock.close()
            else:
                gates.append(Gate(house.directory, order))
                orders.sendall(json.dumps(gates[-1].says()).encode())
        for gate in gates:
            gate.process.kill()

    def gate(self, command: str) -> dict[str, object]:
        """Start a gate there; its first line."""
        self._ours.sendall(command.encode())
        message = json.loads(self._ours.recv(65536))
        assert isinstance(message, dict)
        return message

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def connect(self) -> socket.socket:
        self._ours.sendall(b"connect")
        _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
        sock = socket.socket(fileno=fds[0])
        sock.settimeout(15)
        return sock

    def close(self) -> None:
        self._ours.close()
        os.waitpid(self.pid, 0)
