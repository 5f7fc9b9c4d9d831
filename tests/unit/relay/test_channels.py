"""The relay moves every byte, in order, both ways, and nobody waits for a stranger."""

import hashlib
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from spicetunnel.relay.channels import CHUNK, Channel, Channels


class Loop:
    """The channels of a session, served in a thread as the session does, and their far ends."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self.channels = Channels(self.poller)
        self.ended: list[tuple[int, str, int, int]] = []
        self.rounds = 0
        self._far_ends: list[socket.socket] = []
        self._stop, self._wake = os.pipe()
        self.poller.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._turn, daemon=True)

    def open(self, number: int = 1, *, hold: bool = False) -> tuple[socket.socket, socket.socket]:
        """The far ends of a new channel: the viewer's and the VM's. Before start() only."""
        viewer, near_viewer = socket.socketpair()
        vm, near_vm = socket.socketpair()
        for end in (viewer, vm):
            end.settimeout(10)
            self._far_ends.append(end)
        self.channels.add(Channel(number, near_viewer, near_vm, hold=hold))
        return viewer, vm

    def start(self) -> None:
        self._thread.start()

    def _turn(self) -> None:
        while True:
            for fd, events in self.poller.poll():
                if fd == self._stop:
                    return
                self.rounds += 1
                ended = self.channels.serve(fd, events)
                if ended and ended.done:
                    counts = (ended.up.moved, ended.down.moved)
                    self.ended.append((ended.number, ended.ended_by, *counts))

    def stop(self) -> None:
        os.write(self._wake, b"x")
        if self._thread.is_alive():
            self._thread.join(5)
        for channel in list(self.channels.by_number.values()):
            self.channels.remove(channel)
        for end in self._far_ends:
            end.close()
        self.poller.close()
        os.close(self._stop)
        os.close(self._wake)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def read_all(end: socket.socket) -> bytes:
    data = bytearray()
    while part := end.recv(65536):
        data += part
    return bytes(data)


def send_in_odd_pieces(end: socket.socket, data: bytes, seed: int) -> None:
    """Random sizes and pauses, then a half-close."""
    dice = random.Random(seed)
    position = 0
    while position < len(data):
        size = dice.choice([1, 7, 100, 4096, 65536, CHUNK + 1, 3 * CHUNK])
        end.sendall(data[position : position + size])
        position += size
        if dice.random() < 0.05:
            time.sleep(0.002)
    end.shutdown(socket.SHUT_WR)


def read_in_odd_pieces(end: socket.socket, seed: int) -> bytes:
    dice = random.Random(seed)
    digest = hashlib.sha256()
    while part := end.recv(dice.choice([1, 1000, 65536, 2 * CHUNK])):
        digest.update(part)
        if dice.random() < 0.01:
            time.sleep(0.005)
    return digest.digest()


@pytest.mark.parametrize("seed", range(4))
def test_every_byte_both_ways_with_random_sizes_and_stalls(loop: Loop, seed: int) -> None:
    viewer, vm = loop.open()
    loop.start()
    up, down = random.Random(seed).randbytes(3_000_001), random.Random(~seed).randbytes(5_000_003)
    got: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=send_in_odd_pieces, args=(viewer, up, seed)),
        threading.Thread(target=send_in_odd_pieces, args=(vm, down, seed + 1)),
        threading.Thread(target=lambda: got.update(up=read_in_odd_pieces(vm, seed + 2))),
        threading.Thread(target=lambda: got.update(down=read_in_odd_pieces(viewer, seed + 3))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == {"up": hashlib.sha256(up).digest(), "down": hashlib.sha256(down).digest()}
    wait_until(lambda: bool(loop.ended))
    assert loop.ended[0][2:] == (len(up), len(down))


def test_half_close_of_the_viewer_leaves_the_vm_talking(loop: Loop) -> None:
    viewer, vm = loop.open()
    loop.start()
    viewer.sendall(b"last words")
    viewer.shutdown(socket.SHUT_WR)
    assert read_all(vm) == b"last words"
    vm.sendall(b"an answer, much later")
    vm.close()
    assert read_all(viewer) == b"an answer, much later"
    wait_until(lambda: loop.ended == [(1, "viewer", 10, 21)])


def test_half_close_of_the_vm_leaves_the_viewer_talking(loop: Loop) -> None:
    viewer, vm = loop.open()
    loop.start()
    vm.shutdown(socket.SHUT_WR)
    assert read_all(viewer) == b""
    viewer.sendall(b"still here")
    viewer.close()
    assert read_all(vm) == b"still here"
    wait_until(lambda: loop.ended == [(1, "vm", 10, 0)])


def test_nothing_is_dropped_when_the_vm_closes_on_a_slow_viewer(loop: Loop) -> None:
    """The VM says 8 MiB and leaves; the viewer reads only then."""
    viewer, vm = loop.open()
    loop.start()
    data = random.Random(1).randbytes(8 * 1024 * 1024)

    def say_and_leave() -> None:
        vm.sendall(data)
        vm.close()

    sender = threading.Thread(target=say_and_leave)
    sender.start()
    wait_until(lambda: loop.channels.by_number[1].down.moved > 0)
    time.sleep(0.05)
    assert read_all(viewer) == data
    sender.join(10)
    wait_until(lambda: loop.ended == [(1, "vm", 0, len(data))])


def test_a_stalled_viewer_costs_a_chunk_and_stalls_no_other_channel(loop: Loop) -> None:
    stalled_viewer, flooding_vm = loop.open(1)
    viewer, vm = loop.open(2)
    loop.start()
    flooding_vm.setblocking(False)
    sent = 0
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < 0.3:  # until nobody takes a byte any more
        try:
            sent += flooding_vm.send(bytes(65536))
            idle_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    assert len(loop.channels.by_number[1].down.pending) <= CHUNK
    assert sent < 1_000_000, "more was taken than the kernel's buffers and one chunk hold"
    for _ in range(100):
        vm.sendall(b"ping")
        assert viewer.recv(4) == b"ping"
        viewer.sendall(b"pong")
        assert vm.recv(4) == b"pong"
    stalled_viewer.close()


@pytest.mark.parametrize("dead", ["viewer", "vm"])
def test_a_dead_end_does_not_spin_the_loop(loop: Loop, dead: str) -> None:
    """epoll reports a hang-up for ever; with the other end stalled, that must not cost a core."""
    viewer, vm = loop.open()
    loop.start()
    talker, sleeper = (vm, viewer) if dead == "vm" else (viewer, vm)
    talker.setblocking(False)
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < 0.2:
        try:
            talker.send(bytes(65536))
            idle_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    talker.close()
    time.sleep(0.1)
    before = loop.rounds
    time.sleep(0.3)
    assert loop.rounds - before < 20
    assert read_all(sleeper)
    wait_until(lambda: [each[:2] for each in loop.ended] == [(1, dead)])


def test_bytes_for_a_dead_vm_end_the_channel(loop: Loop) -> None:
    """The VM closed with unread input: a reset, to be taken for an end and not for a fault."""
    viewer, vm = loop.open()
    loop.start()
    viewer.sendall(b"never read")
    wait_until(lambda: loop.channels.by_number[1].up.moved == 10)
    vm.close()
    assert read_all(viewer) == b""
    wait_until(lambda: [each[:2] for each in loop.ended] == [(1, "vm")])


def test_what_a_viewer_says_to_a_dead_vm_does_not_make_it_the_viewer_s_end(loop: Loop) -> None:
    """A mouse that moves while its VM dies, and is heard of first."""
    viewer, vm = loop.open()
    vm.close()
    viewer.sendall(b"x")
    channel = loop.channels.by_number[1]
    loop.channels.serve(channel.viewer.fileno(), select.EPOLLIN)
    assert channel.ended_by == "vm"


@pytest.mark.parametrize("how", ["close", "close on words", "half-close"])
def test_a_held_viewer_cannot_see_its_vms_end_before_it_is_released(loop: Loop, how: str) -> None:
    viewer, vm = loop.open(hold=True)
    if how == "close on words":
        viewer.sendall(b"x")
    vm.shutdown(socket.SHUT_WR) if how == "half-close" else vm.close()
    channel = loop.channels.by_number[1]
    turn(loop)
    assert channel.is_held
    assert not channel.done
    assert events_at(viewer) == select.POLLOUT  # neither an end to read nor one to write to
    channel.release()
    loop.channels.settle(channel)
    assert viewer.recv(1) == b""
    assert channel.ended_by == "vm"


def test_what_the_vm_said_last_reaches_a_held_viewer(loop: Loop) -> None:
    viewer, vm = loop.open(hold=True)
    vm.sendall(b"last words")
    vm.close()
    turn(loop)
    assert viewer.recv(100) == b"last words"
    assert loop.channels.by_number[1].is_held


def test_a_viewer_that_leaves_is_not_held(loop: Loop) -> None:
    viewer, vm = loop.open(hold=True)
    viewer.close()
    turn(loop)
    assert vm.recv(1) == b""
    vm.close()
    turn(loop)
    assert not loop.channels.by_number


def test_a_viewer_that_leaves_while_it_is_held_waits_for_the_release(loop: Loop) -> None:
    """Whoever was told of the hold may still ask for the release."""
    viewer, vm = loop.open(hold=True)
    vm.close()
    turn(loop)
    viewer.close()
    turn(loop)
    channel = loop.channels.by_number[1]
    channel.release()
    loop.channels.settle(channel)
    assert not loop.channels.by_number


def turn(loop: Loop) -> None:
    """All rounds that there is something to do in."""
    while ready := loop.poller.poll(0.1):
        for fd, events in ready:
            loop.channels.serve(fd, events)


def events_at(end: socket.socket) -> int:
    poller = select.poll()
    poller.register(end, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    return dict(poller.poll(0)).get(end.fileno(), 0)


def test_a_thousand_channels_leak_no_descriptor(loop: Loop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1000):
        viewer, vm = loop.open(number)
        viewer.sendall(b"x")
        viewer.close()
        for fd, events in loop.poller.poll(0.1):
            loop.channels.serve(fd, events)
        assert vm.recv(10) == b"x"
        vm.close()
        while loop.channels.by_number:
            for fd, events in loop.poller.poll(0.1):
                loop.channels.serve(fd, events)
    assert len(os.listdir("/proc/self/fd")) == before


def test_events_of_a_channel_closed_in_the_same_round_are_ignored(loop: Loop) -> None:
    viewer, vm = loop.open()
    viewer.close()
    vm.close()
    ready = loop.poller.poll(1)
    assert len(ready) == 2
    for fd, events in [*ready, *ready, *ready]:
        loop.channels.serve(fd, events)
    assert not loop.channels.by_number
