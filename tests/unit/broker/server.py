"""Broker, relay and gates as real processes of one user, without sshd and without root.

The test's own process takes the place of sshd's process for one SSH connection: it is the gate's
parent, and it connects to tunnel.sock. The VM is a plain socket that the test answers itself.
(The same path with real sshd, ssh and QEMU is in tests/system and tests/refusals.)
"""

import contextlib
import fcntl
import getpass
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from spicetunnel.common import processes
from tests.stage.sockets import is_listening
from tests.stage.spice import link

MAIN, DISPLAY = 1, 2
#: A test allows this many times the time that is promised: the test machine may be busy.
PATIENCE = 5
T = TypeVar("T")


def wait_until(look: Callable[[], T], what: str | Callable[[], str], seconds: float = 10) -> T:
    """`what`: what is waited for, or a function that says so at the end of a vain wait."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() >= deadline:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {seconds} s for {words}")
        time.sleep(0.005)
    return found


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
        """The next channel. Skips the broker's short connections that only check for a listener."""
        while True:
            connection, _ = self.listener.accept()
            connection.settimeout(10)
            if connection.recv(1, socket.MSG_PEEK):
                return connection
            connection.close()

    def drain_backlog(self) -> None:
        """Accept and close all pending connections: the broker's checks fill the backlog."""
        self.listener.settimeout(0)
        try:
            while True:
                self.listener.accept()[0].close()
        except BlockingIOError:
            self.listener.settimeout(10)

    def switch_off(self) -> None:
        self.listener.close()
        self.path.unlink()


class Gate:
    """A gate whose output the test reads line by line."""

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
        self._read = b""  # what `says` has read, and not returned yet

    def says(self, *, is_about_viewer: bool = False) -> dict[str, object]:
        """The gate's next event; the command must have --json. Empty lines are skipped, as is
        `attached`, unless `is_about_viewer`.
        """
        assert self.process.stdout
        line = b""
        while not line:
            line = self._line()
        message = json.loads(line)
        assert isinstance(message, dict)
        is_wanted = is_about_viewer or message["event"] != "attached"
        return message if is_wanted else self.says()

    def _line(self) -> bytes:
        """The next line, without its end."""
        assert self.process.stdout
        while b"\n" not in self._read:
            ready, _, _ = select.select([self.process.stdout], [], [], 30)
            assert ready, "the gate has said nothing for 30 s"
            part = os.read(self.process.stdout.fileno(), 65536)
            assert part, self.process.stderr and self.process.stderr.read()
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line

    def is_silent(self, seconds: float = 0.3) -> bool:
        """Whether the gate writes nothing for so long."""
        assert self.process.stdout
        return not self._read and not select.select([self.process.stdout], [], [], seconds)[0]

    def exit_code(self) -> int:
        return self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


class Speaker:
    """A program of the user's that takes the gate's place and sends whatever the test wants.

    `connect` connects to the broker from the SSH connection's process or a child of it.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self.sock = connect()
        self.sock.settimeout(10)

    def send(self, message: dict[str, object]) -> None:
        self.sock.send(json.dumps(message).encode())

    def receive(self) -> dict[str, object]:
        message = json.loads(self.sock.recv(65536))
        assert isinstance(message, dict)
        return message

    def connect_again(self) -> "Speaker":
        return Speaker(self._connect)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Forked:
    """A child made with os.fork, with the methods of subprocess.Popen that Server uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def kill(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 10) -> int:
        """Its exit code; negative for the signal that ended it."""
        wait_until(self._has_ended, "the process to end", seconds)
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    def _has_ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None


class Server:
    """The broker, the relay and the gates of one test, with their files in one short directory.

    `patch` is code that a broker runs before it starts, for example to shorten its waits;
    `relay_patch` is code that the relay runs before it starts, to make session processes hostile.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.map = directory / "vms.yaml"
        self.log_file = directory / "broker.log"
        self.state = directory / "state"
        self.state.mkdir(0o700)
        self.relay_dir = directory / "relay"
        self.relay_dir.mkdir(0o700)
        self.relay_log = directory / "relay.log"
        self.relay: subprocess.Popen[bytes] | None = None
        self.patch = ""
        self.relay_patch = ""
        self._parts = contextlib.ExitStack()
        self.user = getpass.getuser()
        self.vms: dict[str, Vm] = {}
        self.write_map(self.user, "vm1", "vm2")

    def _broker(self) -> list[str]:
        parts = "from spicetunnel.broker import daemon, lifecycle, tunnel"
        code = f"{parts}\n{self.patch}\ndaemon.main()"
        start = ["-c", code] if self.patch else ["-m", "spicetunnel.broker"]
        places = ["--map", self.map, "--run-dir", self.directory, "--state-dir", self.state]
        return [sys.executable, *start, *map(str, places), "--relay-dir", str(self.relay_dir)]

    def write_map(self, user: str, *names: str, grant: str = "", vm: str = "") -> None:
        """`grant` is appended to each grant, `vm` is one more line for each VM."""
        lines = ["limits: {opens-per-minute: 250, sessions-per-user: 250}", "vms:"]
        for name in names:
            lines += [
                f"  {name}:",
                f"    title: the {name}",
                f"    socket: {self.directory}/{name}",
            ]
            lines += [f"    {vm}"] if vm else []
            lines += ["    allow:", f"      - {{user: {user}{grant}}}"]
        self.map.write_text("\n".join([*lines, ""]))

    def use_map(self, text: str) -> None:
        """Put a map in force; {dir} is the server's directory."""
        before = len(self.audit("map"))
        self.map.write_text(text.replace("{dir}", str(self.directory)))
        self.broker.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.audit("map")) > before, "the reload")
        assert self.audit("map")[-1]["decision"] == "allow", self.audit("map")[-1]

    def try_to_start(self) -> int:
        """Run a broker that should exit at once; its exit code."""
        null = subprocess.DEVNULL
        return subprocess.run(self._broker(), check=False, stderr=null, timeout=10).returncode

    def start_relay(self) -> None:
        log = self._parts.enter_context(self.relay_log.open("ab"))
        places = ["--dir", str(self.relay_dir), "--broker-user", self.user]
        # The hostile code is for the sessions only: the parent's rehearsal must not run it.
        code = "from spicetunnel.relay import __main__ as relay\nrelay.rehearse = lambda: None\n"
        code += f"{self.relay_patch}\nrelay.main()"
        start = ["-c", code] if self.relay_patch else ["-m", "spicetunnel.relay"]
        program = [sys.executable, *start, *places]
        self.relay = subprocess.Popen(program, stderr=log)
        self._parts.callback(self.stop_relay)
        wait_until(lambda: is_listening(self.relay_dir / "relay.sock"), "the relay to listen")

    def kill_relay(self) -> None:
        """Kill the parent with SIGKILL: its sessions go on."""
        assert self.relay
        self.relay.kill()
        self.relay.wait()

    def stop_relay(self) -> None:
        """Stop the relay with SIGTERM, as a service manager does: its sessions end."""
        assert self.relay
        self.relay.terminate()
        self.relay.wait(10)

    def relay_processes(self) -> list[int]:
        """The pids of the sessions' processes."""
        pids = []
        for path in (self.relay_dir / "sessions").iterdir():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                with contextlib.suppress(OSError):
                    probe.connect(str(path))
                    pids.append(processes.peer_of(probe)[0])
        return pids

    def start(self, *options: str) -> None:
        """Start a broker, and the relay if it does not run yet."""
        if not self.relay:
            self.start_relay()
        log = self._parts.enter_context(self.log_file.open("ab"))
        before = self.audit("start") if self.log_file.exists() else []
        self.broker: subprocess.Popen[bytes] | Forked
        self.broker = subprocess.Popen([*self._broker(), *options], stderr=log)
        self._parts.callback(self.kill_broker)
        wait_until(lambda: len(self.audit("start")) > len(before), "the broker")
        wait_until(self._listens, "the broker to listen")

    def start_under(self, notify: Path, given: list[tuple[str, int]]) -> None:
        """Start a broker as a service manager would that listens at `notify` and passes `given`."""
        log = self._parts.enter_context(self.log_file.open("ab"))
        names = ":".join(name for name, _ in given)
        count = len(given)
        before = len(self.audit("start"))
        fds = [os.dup(fd) for _, fd in given]
        command = self._broker()

        def arrange() -> None:  # in the child: LISTEN_PID must be the child's pid
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
            for number, fd in enumerate(high):
                os.dup2(fd, 3 + number, inheritable=True)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
            os.environ.update(LISTEN_FDNAMES=names, NOTIFY_SOCKET=str(notify))
            os.execv(command[0], command)

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

    def restart_patched(self, change: str, *options: str) -> None:
        """Start the next broker with `change` as its patch."""
        self.kill_broker()
        self.patch = change
        self.start(*options)

    def kill_broker(self) -> None:
        """With SIGKILL."""
        self.broker.kill()
        self.broker.wait()

    def stop_broker(self) -> None:
        """With SIGTERM, as a service manager does."""
        self.broker.terminate()
        assert self.broker.wait(10) == 0

    def audit(self, event: str = "") -> list[dict[str, object]]:
        text = self.log_file.read_text()
        assert "Traceback" not in text, text
        lines = map(json.loads, text.splitlines())
        return [line for line in lines if event in {"", line["event"]}]

    def denied(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.audit(event) if line["decision"] == "deny"]

    def vm(self, name: str) -> Vm:
        self.vms[name] = Vm(self.directory / name)
        self._parts.callback(self.vms[name].listener.close)
        return self.vms[name]

    def gate(self, command: str) -> Gate:
        gate = Gate(self.directory, command)
        self._parts.callback(gate.close)
        return gate

    def open(self, name: str, *options: str) -> Gate:
        """A gate whose session is ready."""
        gate = self.gate(" ".join(["open --json", *options, name]))
        ready = gate.says()
        assert ready["event"] == "ready", ready
        return gate

    def follow_log(self) -> Iterator[list[str]]:
        """Yields the lines written since the last call, for a log that gets long."""
        with self.log_file.open() as log:
            while True:
                yield log.readlines()

    def audit_ends(self) -> list[str]:
        """The log's lines about ends of sessions, not decoded."""
        return [line for line in self.log_file.read_text().splitlines() if "session-end" in line]

    def speaker(self) -> Speaker:
        return Speaker(self._connect_control)

    def _connect_control(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.directory / "control.sock"))
        return sock

    def other(self, uid: int | None = None) -> "OtherConnection":
        """Another SSH connection, for the rest of the test; `uid` needs root."""
        return self._parts.enter_context(other_connection(self, uid))

    def connect(self) -> socket.socket:
        """Connect to tunnel.sock, as sshd does for a forwarded connection."""
        sock = socket.socket(socket.AF_UNIX)
        self._parts.callback(sock.close)
        sock.settimeout(15)
        sock.connect(str(self.directory / "tunnel.sock"))
        return sock

    def channel(self, vm: Vm, kind: int = MAIN) -> tuple[socket.socket, socket.socket]:
        """Open a channel and pass bytes through it: the viewer's end and the VM's."""
        return self.through(self.connect(), vm, kind)

    def through(
        self, viewer: socket.socket, vm: Vm, kind: int = MAIN
    ) -> tuple[socket.socket, socket.socket]:
        """The same over a forwarded connection that is open already."""
        self._parts.callback(viewer.close)
        wanted = link(kind, 0 if kind == MAIN else 7)
        viewer.sendall(wanted)
        far = vm.accept()
        self._parts.callback(far.close)
        assert far.recv(100) == wanted
        far.sendall(b"!")
        assert viewer.recv(1) == b"!"
        return viewer, far

    def reach(self, viewer: socket.socket, vm: Vm, kind: int = MAIN) -> socket.socket:
        """The VM's end of a channel whose relay process is hostile and may move no bytes."""
        self._parts.callback(viewer.close)
        viewer.sendall(link(kind, 0 if kind == MAIN else 7))
        far = vm.accept()
        self._parts.callback(far.close)
        assert far.recv(100) == link(kind, 0 if kind == MAIN else 7)
        return far

    def descriptors(self, process: subprocess.Popen[str] | subprocess.Popen[bytes] | Forked) -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    def at_the_end(self, callback: Callable[[], object]) -> None:
        self._parts.callback(callback)

    def close(self) -> None:
        self._parts.close()


@contextlib.contextmanager
def running_server(*options: str, user: str = "", relay_patch: str = "") -> Iterator[Server]:
    """A server in a new directory, started with `options`. The map names `user`, or us."""
    # Not tmp_path: its names are long, and a socket's path may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        server = Server(Path(directory))
        server.relay_patch = relay_patch
        if user:
            server.write_map(user, "vm1", "vm2")
        try:
            server.start(*options)
            yield server
        finally:
            server.close()


@contextlib.contextmanager
def other_connection(server: Server, uid: int | None = None) -> Iterator["OtherConnection"]:
    connection = OtherConnection(server, uid)
    try:
        yield connection
    finally:
        connection.close()


class OtherConnection:
    """Another SSH connection, of the same user unless `uid` is given.

    It is a child of the test's process, starts gates and connects to tunnel.sock on demand, and
    passes their answers and the connections to the test. Its own child, the connector, connects to
    the broker in the place of a gate.
    """

    def __init__(self, server: Server, uid: int | None = None) -> None:
        self._speakers: list[Speaker] = []
        self._stopped: list[int] = []
        self._ours, theirs = socket.socketpair()
        self._connector, connector_end = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _keep_only(theirs, connector_end)
                if uid is not None:
                    os.setgroups([])
                    os.setgid(uid)
                    os.setuid(uid)
                self._run(server, theirs, connector_end)
            finally:
                os._exit(70)  # after a failure, the child must not go on as a second pytest
        theirs.close()
        connector_end.close()
        self._connector_pid = int(self._ours.recv(20))

    def _run(self, server: Server, orders: socket.socket, connector_end: socket.socket) -> None:
        connector = os.fork()
        if connector == 0:
            _keep_only(connector_end)
            _serve_connector(server, connector_end)
        connector_end.close()
        orders.sendall(b"%d" % connector)
        self._serve(server, orders)
        os.kill(connector, signal.SIGKILL)
        os._exit(0)

    def _serve(self, server: Server, orders: socket.socket) -> None:
        gates: list[Gate] = []
        while words := orders.recv(4096).decode():
            if words == "connect":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(server.directory / "tunnel.sock"))
                socket.send_fds(orders, [b"x"], [sock.fileno()])
                sock.close()
            else:
                gates.append(Gate(server.directory, words))
                orders.sendall(json.dumps(gates[-1].says()).encode())
        for gate in gates:
            gate.process.kill()

    def gate(self, command: str) -> dict[str, object]:
        """Start a gate below this SSH connection; its first line."""
        self._ours.sendall(command.encode())
        return self._answer()

    def speaker(self) -> Speaker:
        """A connection to the broker, made by a process below this SSH connection."""
        return Speaker(self._connect_control)

    def _connect_control(self) -> socket.socket:
        self._connector.sendall(b"x")
        _, fds, _, _ = socket.recv_fds(self._connector, 1, 1)
        return socket.socket(fileno=fds[0])

    def say(self, message: dict[str, object]) -> dict[str, object]:
        """Send one message to the broker and keep the connection open; the answer."""
        speaker = self.speaker()
        self._speakers.append(speaker)
        speaker.send({"v": 1, **message})
        return speaker.receive()

    def _answer(self) -> dict[str, object]:
        message = json.loads(self._ours.recv(65536))
        assert isinstance(message, dict)
        return message

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split() if int(pid) != self._connector_pid]

    def stop_gates(self) -> None:
        """With SIGSTOP: they stay alive and connected, but send nothing."""
        for pid in self.children():
            self._stopped.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGSTOP)

    def connect(self) -> socket.socket:
        self._ours.sendall(b"connect")
        _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
        sock = socket.socket(fileno=fds[0])
        sock.settimeout(15)
        return sock

    def kill_gates(self) -> None:
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the SSH connection's own process with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0

    def close(self) -> None:
        for pidfd in self._stopped:  # one whose parent is gone would stay for ever
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._ours.close()
        self._connector.close()
        for speaker in self._speakers:
            speaker.close()
        if self.pid:
            os.waitpid(self.pid, 0)


def _keep_only(*sockets: socket.socket) -> None:
    """Close the test's other descriptors in a forked child: held open here, they would not end."""
    kept = [2, *sorted(sock.fileno() for sock in sockets)]
    for low, high in zip(kept, [*kept[1:], 4096], strict=True):
        os.closerange(low + 1, high)


def _serve_connector(server: Server, orders: socket.socket) -> None:
    """For each order, connect to the broker, pass the connection on and close our copy."""
    while orders.recv(1):
        broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        broker.connect(str(server.directory / "control.sock"))
        socket.send_fds(orders, [b"x"], [broker.fileno()])
        broker.close()
    os._exit(0)
