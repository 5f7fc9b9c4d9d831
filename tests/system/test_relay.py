"""The relay is faithful: through the real ssh, sshd, gate and broker, to a VM that we answer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.refusals.attacker import local_socket, wait_for_socket
from tests.stage.broker import TUNNEL
from tests.stage.machine import processes
from tests.stage.spice import DISPLAY, MAIN, link
from tests.stage.stage import MAP
from tests.stage.vm import SOCKETS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.stage import Stage

GIB = 1024**3
BLOCK = 1 << 20
RAW = SOCKETS / "raw.sock"
RAW_MAP = f"{MAP}  raw:\n    socket: {RAW}\n    allow:\n      - user: st-alice\n"


class RawVm:
    """alice's session at a VM that is a plain socket of ours."""

    def __init__(self, stage: Stage, ssh: Process, near: Path, listener: socket.socket) -> None:
        self.stage = stage
        self.ssh = ssh
        self.near = near
        self.listener = listener
        self.ends: list[socket.socket] = []

    def channel(self, kind: int = MAIN) -> tuple[socket.socket, socket.socket]:
        """A new channel: the viewer's end and the VM's, with the link message behind them."""
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
        """The broker's next channel; its short looks whether we listen are passed over."""
        while True:
            vm, _ = self.listener.accept()
            vm.settimeout(60)
            if vm.recv(1, socket.MSG_PEEK):
                return vm
            vm.close()

    def gate_pid(self, person: Person) -> int:
        (pid,) = [pid for pid in processes({person.uid}) if b"spicetunnel.gate" in cmdline(pid)]
        return pid


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def path(stage: Stage, broker: Broker, alice: Person) -> Iterator[RawVm]:
    RAW.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(RAW))
        RAW.chmod(0o660)  # the directory is setgid: the group is the broker's
        listener.listen(64)
        listener.settimeout(20)
        assert stage.set_map(RAW_MAP)
        near = local_socket("raw-near")
        with stage.gate_ssh(alice, "open raw", forwards=(f"{near}:{TUNNEL}",)) as ssh:
            ssh.says("raw is ready")
            wait_for_socket(near, ssh)
            path = RawVm(stage, ssh, near, listener)
            yield path
            for end in path.ends:
                end.close()


def pour(end: socket.socket, total: int, seed: int, digests: dict[str, str], name: str) -> None:
    """Send `total` bytes, no block like another, then end this direction."""
    digest = hashlib.sha256()
    block = bytearray(random.Random(seed).randbytes(BLOCK))
    for number in range(total // BLOCK):
        block[:8] = number.to_bytes(8, "big")
        digest.update(block)
        end.sendall(block)
    end.shutdown(socket.SHUT_WR)
    digests[name] = digest.hexdigest()


def drain(end: socket.socket, digests: dict[str, str], name: str) -> None:
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


def test_a_gibibyte_each_way_at_once(path: RawVm) -> None:
    viewer, vm = path.channel()
    digests: dict[str, str] = {}
    run_all(
        threading.Thread(target=pour, args=(viewer, GIB, 1, digests, "sent up")),
        threading.Thread(target=pour, args=(vm, GIB, 2, digests, "sent down")),
        threading.Thread(target=drain, args=(vm, digests, "came up")),
        threading.Thread(target=drain, args=(viewer, digests, "came down")),
    )
    assert digests["sent up"] == digests["came up"]
    assert digests["sent down"] == digests["came down"]
    assert digests["sent up"] != digests["sent down"]
    end = path.stage.broker.wait_audit(
        lambda line: line["event"] == "channel-end" and line["vm"] == "raw"
        and line["bytes_up"] == GIB
    )  # fmt: skip
    assert end["bytes_down"] == GIB + 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_sizes_and_stalls(path: RawVm, seed: int) -> None:
    viewer, vm = path.channel()
    data = random.Random(seed).randbytes(20_000_019)
    got = hashlib.sha256()

    def send() -> None:
        dice, position = random.Random(seed), 0
        while position < len(data):
            size = dice.choice([1, 3, 1000, 16384, 65537, 2_000_000])
            vm.sendall(data[position : position + size])
            position += size
            if dice.random() < 0.1:
                time.sleep(0.01)
        vm.close()

    def receive() -> None:
        dice = random.Random(-seed)
        while part := viewer.recv(dice.choice([1, 100, 32768, 1_000_000])):
            got.update(part)
            if dice.random() < 0.002:
                time.sleep(0.02)

    run_all(threading.Thread(target=send), threading.Thread(target=receive))
    assert got.digest() == hashlib.sha256(data).digest()
    viewer.close()


def test_stalled_viewer_costs_no_memory_and_stalls_no_other_channel(
    path: RawVm, alice: Person
) -> None:
    stalled, flood = path.channel()
    viewer, vm = path.channel(DISPLAY)
    gate = path.gate_pid(alice)
    before = resident_kib(gate)
    flood.setblocking(False)
    sent, idle_since = 0, time.monotonic()
    while time.monotonic() - idle_since < 1:
        with contextlib.suppress(BlockingIOError):
            sent += flood.send(bytes(BLOCK))
            idle_since = time.monotonic()
    assert sent > 1_000_000, "nothing was stalled"
    assert resident_kib(gate) - before < 2048
    for _ in range(50):
        vm.sendall(b"ping")
        assert viewer.recv(4) == b"ping"
        viewer.sendall(b"pong")
        assert vm.recv(4) == b"pong"
    for end in (stalled, flood, viewer, vm):
        end.close()


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_thousand_channels_leak_no_descriptor(path: RawVm, alice: Person) -> None:
    main, main_vm = path.channel()
    gate, broker = path.gate_pid(alice), path.stage.broker.pid
    before = descriptors(gate), descriptors(broker)
    for _ in range(1000):
        viewer, vm = path.channel(DISPLAY)
        viewer.close()
        assert vm.recv(1) == b""
        vm.close()
    # Not ==: the broker now and then has a file open for a moment.
    wait_until(lambda: descriptors(gate) <= before[0], 5, "the gate's to be closed")
    wait_until(lambda: descriptors(broker) <= before[1], 5, "the broker's to be closed")
    main.close()
    main_vm.close()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_every_descriptor_closes_on_exec(path: RawVm, alice: Person) -> None:
    ends = [path.channel(), path.channel(DISPLAY)]
    for pid in (path.gate_pid(alice), path.stage.broker.pid):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            if int(entry.name) > 2:
                flags = int(entry.read_text().split("flags:")[1].split()[0], 8)
                assert flags & os.O_CLOEXEC, f"{pid}: {os.readlink(f'/proc/{pid}/fd/{entry.name}')}"
    for viewer, vm in ends:
        viewer.close()
        vm.close()
