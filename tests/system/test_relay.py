"""The relay passes all bytes unchanged: real ssh, sshd and broker, and a VM played by the test."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.broker import RELAY, RELAY_DIR
from tests.stage.command import run
from tests.stage.rawvm import (
    BLOCK,
    RawVm,
    drain,
    gate_pid,
    pour,
    raw_map,
    raw_session,
    relay_pid,
    run_all,
)
from tests.stage.spice import DISPLAY
from tests.stage.stage import MAP
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.stage import Stage

GIB = 1024**3


@pytest.fixture
def path(stage: Stage, broker: Broker, alice: Person) -> Iterator[RawVm]:
    assert stage.set_map(raw_map(MAP, "raw"))
    with raw_session(stage, alice, "raw") as path:
        yield path


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
def test_data_in_random_sizes_with_stalls_arrives_unchanged(path: RawVm, seed: int) -> None:
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


def test_stalled_viewer_costs_no_memory_and_stalls_no_other_channel(path: RawVm) -> None:
    stalled, flood = path.channel()
    viewer, vm = path.channel(DISPLAY)
    relay = relay_pid(path.stage)
    before = resident_kib(relay)
    flood.setblocking(False)
    sent, idle_since = 0, time.monotonic()
    while time.monotonic() - idle_since < 1:
        with contextlib.suppress(BlockingIOError):
            sent += flood.send(bytes(BLOCK))
            idle_since = time.monotonic()
    assert sent > 1_000_000, "the buffers never filled"
    assert resident_kib(relay) - before < 2048
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


def test_a_thousand_channels_leak_no_descriptor(path: RawVm) -> None:
    main, main_vm = path.channel()
    relay, broker = relay_pid(path.stage), path.stage.broker.pid
    before = descriptors(relay), descriptors(broker)
    for _ in range(1000):
        viewer, vm = path.channel(DISPLAY)
        viewer.close()
        assert vm.recv(1) == b""
        vm.close()
    # Not ==: the broker opens files for a moment now and then.
    wait_until(lambda: descriptors(relay) <= before[0], 5, "the relay to close its descriptors")
    wait_until(lambda: descriptors(broker) <= before[1], 5, "the broker to close its descriptors")
    main.close()
    main_vm.close()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_every_descriptor_closes_on_exec(path: RawVm, alice: Person) -> None:
    ends = [path.channel(), path.channel(DISPLAY)]
    stage = path.stage
    for pid in (gate_pid(alice), stage.broker.pid, stage.relay.pid, relay_pid(stage)):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            if int(entry.name) > 2:
                flags = int(entry.read_text().split("flags:")[1].split()[0], 8)
                assert flags & os.O_CLOEXEC, f"{pid}: {os.readlink(f'/proc/{pid}/fd/{entry.name}')}"
    for viewer, vm in ends:
        viewer.close()
        vm.close()


def test_gate_holds_no_descriptor_of_a_channel(path: RawVm, alice: Person) -> None:
    """It has three pipes to sshd and a connection to the broker, with or without channels."""
    gate = gate_pid(alice)
    before = descriptors(gate)
    ends = [path.channel(), path.channel(DISPLAY)]
    assert descriptors(gate) == before == 4
    for viewer, vm in ends:
        viewer.close()
        vm.close()


def test_relays_parent_holds_no_descriptor_of_a_session(path: RawVm) -> None:
    parent = path.stage.relay.pid
    before = descriptors(parent)
    ends = [path.channel(), path.channel(DISPLAY)]
    assert descriptors(parent) == before
    for viewer, vm in ends:
        viewer.close()
        vm.close()


@pytest.mark.parametrize("who", ["a person with a session", "root"])
def test_only_the_broker_may_talk_to_the_relay(path: RawVm, alice: Person, who: str) -> None:
    """A person cannot enter the directory. Root can, but SO_PEERCRED shows that it is root."""
    places = [RELAY, *(RELAY_DIR / "sessions").iterdir()]
    assert len(places) == 2
    argv = ["/usr/bin/python3", "-I", "-c", CONNECT, *map(str, places)]
    if who == "root":
        assert run(*argv) == "b''\nb''\n"
    else:
        as_alice = (f"--reuid={alice.uid}", f"--regid={alice.gid}", "--clear-groups")
        with pytest.raises(StageError, match="PermissionError"):
            run("setpriv", *as_alice, *argv)
    viewer, vm = path.channel()
    viewer.close()
    vm.close()


CONNECT = """
import socket, sys
for place in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(place)
        sock.settimeout(5)
        try:
            sock.send(b'{"v":1,"op":"attach"}')
            print(sock.recv(9))
        except ConnectionError:
            print(b"")
"""
