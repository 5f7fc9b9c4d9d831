"""Compares ways from a viewer's socket to a VM's: copying, through the filter of a view-only main
channel, and splice(2). `script/bench relay`.

Each way runs in a process of its own, between a sender and a receiver. The reference, in the same
rounds, is a direct pair of sockets. Compare the ratios: absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import statistics
import time
from collections.abc import Callable

from spicetunnel.relay.channels import Channel, Channels
from spicetunnel.relay.filtered import FilteredChannel
from spicetunnel.spice.agent import Rules
from tests.stage.spice import link_reply, message, ticket, u32

#: Messages that the filter lets pass: PING from the VM, and PONG, which is SET_ACK on its way back.
BLOCK = message(4, bytes(256 * 1024))
SMALL = message(3, bytes(12))
ROUND_TRIPS = 5000
PIPE_SIZE = 1024 * 1024  # the most that F_SETPIPE_SZ allows without root

Way = Callable[[], tuple[socket.socket, socket.socket, int]]


def direct() -> tuple[socket.socket, socket.socket, int]:
    viewer, vm = socket.socketpair()
    return viewer, vm, 0


def copy() -> tuple[socket.socket, socket.socket, int]:
    """The product's relay."""

    return _forked(lambda viewer, vm: _serve(Channel(1, viewer, vm)))


def filtered() -> tuple[socket.socket, socket.socket, int]:
    """The product's relay, with a view-only session's main channel."""
    rules = Rules({"clipboard-from-vm"})
    viewer, vm, pid = _forked(lambda one, other: _serve(FilteredChannel(1, one, other, rules)))
    for here, there, part in (
        (vm, viewer, link_reply()),
        (viewer, vm, ticket()),
        (vm, viewer, u32(0)),
    ):
        here.sendall(part)
        there.recv(len(part), socket.MSG_WAITALL)
    return viewer, vm, pid


def _serve(channel: Channel) -> None:
    poller = select.epoll()
    channels = Channels(poller)
    channels.add(channel)
    while channels.by_number:
        for fd, events in poller.poll():
            channels.serve(fd, events)


def splice() -> tuple[socket.socket, socket.socket, int]:
    """The same loop with a pipe between the sockets, for the bench only: it handles neither
    half-close nor hang-up. Its gain would have to be worth those, and two pipes per channel."""

    def serve(near_viewer: socket.socket, near_vm: socket.socket) -> None:
        poller = select.epoll()
        flows = {}
        for source, sink in ((near_viewer, near_vm), (near_vm, near_viewer)):
            source.setblocking(False)
            reader, writer = os.pipe2(os.O_NONBLOCK)
            with contextlib.suppress(OSError):
                import fcntl

                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            flows[source.fileno()] = (source.fileno(), reader, writer, sink.fileno())
            poller.register(source, select.EPOLLIN)
        while True:
            for fd, _events in poller.poll():
                source_fd, reader, writer, sink_fd = flows[fd]
                count = os.splice(source_fd, writer, PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK)
                if count == 0:
                    return
                while count:
                    try:
                        count -= os.splice(reader, sink_fd, count, flags=os.SPLICE_F_NONBLOCK)
                    except BlockingIOError:
                        select.select([], [sink_fd], [])

    return _forked(serve)


def _forked(
    serve: Callable[[socket.socket, socket.socket], None],
) -> tuple[socket.socket, socket.socket, int]:
    viewer, near_viewer = socket.socketpair()
    vm, near_vm = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        viewer.close()
        vm.close()
        try:
            serve(near_viewer, near_vm)
        finally:
            os._exit(0)
    near_viewer.close()
    near_vm.close()
    return viewer, vm, pid


def bulk(way: Way, total: int) -> float:
    """MB/s from VM to viewer."""
    viewer, vm, relay = way()
    sender = os.fork()
    if sender == 0:
        viewer.close()
        for _ in range(total // len(BLOCK)):
            vm.sendall(BLOCK)
        os._exit(0)
    vm.close()
    buffer = bytearray(1024 * 1024)
    left, started = total // len(BLOCK) * len(BLOCK), time.perf_counter()
    while left > 0:
        left -= viewer.recv_into(buffer)
    seconds = time.perf_counter() - started
    _end(viewer, vm, relay, sender)
    return total / seconds / 1e6


def round_trip(way: Way, _total: int) -> float:
    """Median microseconds for a small message to the VM and back."""
    viewer, vm, relay = way()
    echo = os.fork()
    if echo == 0:
        viewer.close()
        while data := vm.recv(len(SMALL), socket.MSG_WAITALL):
            vm.sendall(data)
        os._exit(0)
    vm.close()
    times = []
    for _ in range(ROUND_TRIPS):
        started = time.perf_counter()
        viewer.sendall(SMALL)
        viewer.recv(len(SMALL), socket.MSG_WAITALL)
        times.append(time.perf_counter() - started)
    _end(viewer, vm, relay, echo)
    return statistics.median(times) * 1e6


def _end(viewer: socket.socket, vm: socket.socket, *pids: int) -> None:
    viewer.close()
    vm.close()
    for pid in filter(None, pids):
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=512, help="bulk MiB per round")
    options = parser.parse_args()
    ways: dict[str, Way] = {
        "direct": direct,
        "copy": copy,
        "filter": filtered,
        "splice": splice,
    }
    for name, measure in (("bulk MB/s", bulk), ("round trip us", round_trip)):
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, make in ways.items():  # in turn, so that noise affects all alike
                found[way].append(measure(make, options.mib << 20))
        print(f"\n{name}: median (min to max) of {options.rounds}")
        for way, values in found.items():
            middle, low, high = statistics.median(values), min(values), max(values)
            print(f"  {way:<7} {middle:8.1f}  ({low:.1f} to {high:.1f})")
        for other in ("splice", "filter"):
            ratios = [a / b for a, b in zip(found["copy"], found[other], strict=True)]
            print(f"  copy/{other}, pair by pair: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
