"""A broker and its gates as real processes of one user, without sshd and without root.

The test's own process stands where sshd's process of one SSH connection stands: it is the gate's
parent, and it connects to tunnel.sock. The VM is a plain socket that the test answers itself.
(The same path with real sshd, ssh and QEMU is in tests/system and tests/refusals.)
"""

import contextlib
import fcntl
import getpass
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.stage.sockets import is_listening

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


class Forked:
    """A child that no subprocess.Popen could start as it must be started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def kill(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, _seconds: float = 0) -> int:
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return self._status


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
        lines = ["limits: {opens-per-minute: 250, sessions-per-user: 250}", "vms:"]
        for name in names:
            lines += [
                f"  {name}:",
                f"    title: the {name}",
                f"    socket: {self.directory}/{name}",
            ]
            lines += ["    allow:", f"      - {{user: {user}{grant}}}"]
        self.map.write_text("\n".join([*lines, ""]))

    def start(self, *options: str) -> None:
        log = self._parts.enter_context(self.log_file.open("ab"))
        places = ["--map", str(self.map), "--run-dir", str(self.directory), *options]
        program = [sys.executable, "-m", "spicetunnel.broker"]
        before = self.audit("start") if self.log_file.exists() else []
        self.broker: subprocess.Popen[bytes] | Forked
        self.broker = subprocess.Popen([*program, *places], stderr=log)
        self._parts.callback(self.kill_broker)
        wait_until(lambda: len(self.audit("start")) > len(before), "the broker")
        wait_until(self._listens, "the broker to listen")

    def start_under(self, notify: Path, given: list[tuple[str, int]]) -> None:
        """A broker whose service manager listens at `notify`, and passes it these descriptors."""
        log = self._parts.enter_context(self.log_file.open("ab"))
        places = ["--map", str(self.map), "--run-dir", str(self.directory)]
        program = [sys.executable, "-m", "spicetunnel.broker"]
        names = ":".join(name for name, _ in given)
        count = len(given)
        before = len(self.audit("start"))
        fds = [os.dup(fd) for _, fd in given]

        def arrange() -> None:  # in the child: LISTEN_PID is its own
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
            for number, fd in enumerate(high):
                os.dup2(fd, 3 + number, inheritable=True)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
            os.environ.update(LISTEN_FDNAMES=names, NOTIFY_SOCKET=str(notify))
            os.execv(program[0], [*program, *places])

        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(log.fileno(), 2)
                arrange()
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)
        self.broker = Forked(pid)
        self._parts.callback(self.kill_broker)
        wait_until(lambda: len(self.audit("start")) > before, "the broker")
        wait_until(self._listens, "the broker to listen")

    def _listens(self) -> bool:
        return is_listening(self.directory / "tunnel.sock")

    def kill_broker(self) -> None:
        """kill -9."""
        self.broker.kill()
        self.broker.wait()

    def stop_broker(self) -> None:
        """As a service manager does."""
        self.broker.terminate()
        assert self.broker.wait(10) == 0

    def audit(self, event: str = "") -> list[dict[str, object]]:
        text = self.log_file.read_text()
        assert "Traceback" not in text, text
        lines = map(json.loads, text.splitlines())
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

    def other(self, uid: int | None = None) -> "OtherConnection":
        """Another SSH connection, for the rest of the test; of another user, if we are root."""
        return self._parts.enter_context(other_connection(self, uid))

    def connect(self) -> socket.socket:
        """What sshd does for a forwarded connection."""
        sock = socket.socket(socket.AF_UNIX)
        self._parts.callback(sock.close)
        sock.settimeout(15)
        sock.connect(str(self.directory / "tunnel.sock"))
        return sock

    def channel(self, vm: Vm, kind: int = MAIN) -> tuple[socket.socket, socket.socket]:
        """A channel through the house, in the gate's hands: the viewer's end and the VM's."""
        return self.through(self.connect(), vm, kind)

    def through(
        self, viewer: socket.socket, vm: Vm, kind: int = MAIN
    ) -> tuple[socket.socket, socket.socket]:
        """The same for a forwarded connection that is there."""
        self._parts.callback(viewer.close)
        wanted = link(kind, 0 if kind == MAIN else 7)
        viewer.sendall(wanted)
        far = vm.accept()
        self._parts.callback(far.close)
        assert far.recv(100) == wanted
        far.sendall(b"!")
        assert viewer.recv(1) == b"!"
        return viewer, far

    def descriptors(self, process: subprocess.Popen[str] | subprocess.Popen[bytes] | Forked) -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    def at_the_end(self, callback: Callable[[], object]) -> None:
        self._parts.callback(callback)

    def close(self) -> None:
        self._parts.close()


@contextlib.contextmanager
def other_connection(house: House, uid: int | None = None) -> Iterator["OtherConnection"]:
    connection = OtherConnection(house, uid)
    try:
        yield connection
    finally:
        connection.close()


class OtherConnection:
    """A second SSH connection, of the same user where none is named: a process beside the test's,
    that starts a gate and connects to the tunnel when told to. It passes both back to the test."""

    def __init__(self, house: House, uid: int | None = None) -> None:
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            self._serve(house, theirs)
            os._exit(0)
        theirs.close()

    def _serve(self, house: House, orders: socket.socket) -> None:
        gates: list[Gate] = []
        while order := _received(orders):
            words, fds = order
            if words == "connect":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(house.directory / "tunnel.sock"))
                socket.send_fds(orders, [b"x"], [sock.fileno()])
                sock.close()
            elif words.startswith("{"):
                orders.sendall(_forged(house, words, fds))
            else:
                gates.append(Gate(house.directory, words))
                orders.sendall(json.dumps(gates[-1].says()).encode())
        for gate in gates:
            gate.process.kill()

    def gate(self, command: str) -> dict[str, object]:
        """Start a gate there; its first line."""
        self._ours.sendall(command.encode())
        return self._answer()

    def forge(self, session: object, fds: list[int], **more: object) -> dict[str, object]:
        """Have a program there, in the place of a gate, say `resume`."""
        channels = {str(number): [0, 0] for number in range(1, len(fds) + 1)}
        about = {"op": "resume", "session": session, "channels": channels, "closed": []}
        return self.say({**about, **more}, fds)

    def say(self, message: dict[str, object], fds: Sequence[int] = ()) -> dict[str, object]:
        """Have a program there, in the place of a gate, say this; the first answer."""
        socket.send_fds(self._ours, [json.dumps({"v": 1, **message}).encode()], fds)
        return self._answer()

    def _answer(self) -> dict[str, object]:
        message = json.loads(self._ours.recv(65536))
        assert isinstance(message, dict)
        return message

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def stop_gates(self) -> None:
        """SIGSTOP: they live, hold all they have, and say nothing."""
        for pid in self.children():
            os.kill(pid, signal.SIGSTOP)

    def connect(self) -> socket.socket:
        self._ours.sendall(b"connect")
        _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
        sock = socket.socket(fileno=fds[0])
        sock.settimeout(15)
        return sock

    def close(self) -> None:
        self._ours.close()
        os.waitpid(self.pid, 0)


def _received(orders: socket.socket) -> tuple[str, list[int]] | None:
    words, fds, _, _ = socket.recv_fds(orders, 4096, 4)
    return (words.decode(), fds) if words else None


def _forged(house: House, message: str, fds: list[int]) -> bytes:
    """From a child, as the gate is one of sshd's process. It lives until we do."""
    answer, theirs = socket.socketpair()
    if os.fork() == 0:
        broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        broker.connect(str(house.directory / "control.sock"))
        socket.send_fds(broker, [message.encode()], fds)
        theirs.sendall(broker.recv(65536))
        for fd in fds:
            os.close(fd)
        answer.close()
        theirs.recv(1)  # until our parent is gone
        os._exit(0)
    theirs.close()
    for fd in fds:
        os.close(fd)
    _FORGERS.append(answer)
    return answer.recv(65536)


_FORGERS: list[socket.socket] = []
