"""A VM that is a plain socket of the test, behind the real ssh, sshd, broker and relay."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import socket
from typing import TYPE_CHECKING

from tests.refusals.attacker import local_socket, wait_for_socket
from tests.stage.broker import TUNNEL
from tests.stage.machine import GATE, processes, words
from tests.stage.spice import MAIN, link
from tests.stage.vm import SOCKETS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.stage import Stage

BLOCK = 1 << 20


def raw_map(base: str, *names: str) -> str:
    """The map `base` with these VMs, which alice may use."""
    vms = (
        f"  {name}:\n    socket: {raw_socket(name)}\n    allow:\n      - user: st-alice\n"
        for name in names
    )
    return base + "".join(vms)


def raw_socket(name: str) -> Path:
    return SOCKETS / f"{name}.sock"


@contextlib.contextmanager
def raw_session(stage: Stage, person: Person, name: str) -> Iterator[RawVm]:
    """A session at the VM `name`, which must be in the current map."""
    path = raw_socket(name)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o660)  # the directory is setgid: the group is the broker's
        listener.listen(64)
        listener.settimeout(20)
        near = local_socket(f"{name}-near")
        with stage.gate_ssh(person, f"open {name}", forwards=(f"{near}:{TUNNEL}",)) as ssh:
            ssh.says(f"{name} is ready")
            wait_for_socket(near, ssh)
            vm = RawVm(stage, ssh, near, listener)
            yield vm
            for end in vm.ends:
                end.close()


class RawVm:
    """A session and its VM; `ends` are all sockets of its channels."""

    def __init__(self, stage: Stage, ssh: Process, near: Path, listener: socket.socket) -> None:
        self.stage = stage
        self.ssh = ssh
        self.near = near
        self.listener = listener
        self.ends: list[socket.socket] = []

    def channel(self, kind: int = MAIN) -> tuple[socket.socket, socket.socket]:
        """Open a channel; returns the viewer's end and the VM's, after the link message."""
        viewer = socket.socket(socket.AF_UNIX)
        viewer.settimeout(60)
        viewer.connect(str(self.near))
        viewer.sendall(link(kind, 0 if kind == MAIN else 7))
        vm = self.accept()
        wanted = link(kind, 0 if kind == MAIN else 7)
        while wanted:
            wanted = wanted.removeprefix(vm.recv(len(wanted)))
        vm.sendall(b"!")
        assert viewer.recv(1) == b"!"
        self.ends += [viewer, vm]
        return viewer, vm

    def accept(self) -> socket.socket:
        """The VM's end of the next channel. Skips the broker's checks whether the VM listens, which
        connect and close."""
        while True:
            vm, _ = self.listener.accept()
            vm.settimeout(60)
            if vm.recv(1, socket.MSG_PEEK):
                return vm
            vm.close()


def gate_pid(person: Person) -> int:
    """The process id of the person's only gate. Waits for the end of the last test's gate."""

    def found() -> list[int]:
        return [pid for pid in processes({person.uid}) if re.search(GATE, words(pid))]

    (pid,) = wait_until(lambda: pids if len(pids := found()) == 1 else [], 5, "one gate")
    return pid


def relay_pid(stage: Stage) -> int:
    """The process id of the only session's relay process. Waits for the end of the last test's."""
    (pid,) = wait_until(
        lambda: pids if len(pids := stage.relay.sessions()) == 1 else [], 5, "one session's relay"
    )
    return pid


def pour(end: socket.socket, total: int, seed: int, digests: dict[str, str], name: str) -> None:
    """Send `total` bytes, each block different, then shut down this direction; notes the digest."""
    digest = hashlib.sha256()
    block = bytearray(random.Random(seed).randbytes(BLOCK))
    for number in range(total // BLOCK):
        block[:8] = number.to_bytes(8, "big")
        digest.update(block)
        end.sendall(block)
    end.shutdown(socket.SHUT_WR)
    digests[name] = digest.hexdigest()


def drain(end: socket.socket, digests: dict[str, str], name: str) -> None:
    """Receive until the end of this direction; notes the digest."""
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    while count := end.recv_into(buffer):
        digest.update(memoryview(buffer)[:count])
    digests[name] = digest.hexdigest()


def run_all(*jobs: threading.Thread) -> None:
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(300)
        assert not job.is_alive()
