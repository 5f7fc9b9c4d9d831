"""Who sends without end does not delay others, and does not fill the broker's memory."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.broker import control
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import Connection
from spicetunnel.broker.listener import Listener
from spicetunnel.broker.peers import Peer
from spicetunnel.broker.people import Admins, People
from tests.unit.broker.server import (
    DISPLAY,
    PATIENCE,
    OtherConnection,
    Server,
    Vm,
    other_connection,
    running_server,
    wait_until,
)

FLOODING_RELAY = """
from spicetunnel.relay import session
def flood(self):
    self._broker.setblocking(True)
    send = self._broker.send
    while True:
        send({packet!r})
session.Session._obey = lambda self, message, fds: flood(self)
"""


@contextlib.contextmanager
def flooding(sock: socket.socket, packet: bytes) -> Iterator[None]:
    """A process that sends the packet as fast as it can."""
    pid = os.fork()
    if pid == 0:
        send = sock.send
        with contextlib.suppress(OSError):
            while True:
                send(packet)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def slowest_answer(server: Server, seconds: float = 2) -> float:
    """The longest time in seconds that another client waits for an answer meanwhile."""
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        asked = time.monotonic()
        with server.speaker() as asker:
            asker.send({"v": 1, "op": "whoami"})
            assert asker.receive()["event"] == "person"
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.05)  # a person may ask 600 times a minute
    return slowest


def resident(server: Server) -> int:
    """The broker's memory in KiB."""
    text = Path(f"/proc/{server.broker.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


LONG = b'{"op":"said","event":"other","x":[%s0]}' % (b"{}," * 20_000)


def test_other_tasks_run_between_two_packets() -> None:
    async def hear() -> tuple[str, ...]:
        order: list[str] = []
        for _ in range(3):
            await connection.receive()
            order.append("packet")
            asyncio.get_running_loop().call_soon(order.append, "other")
        return tuple(order)

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        connection = Connection(near)
        for _ in range(3):
            far.send(b"{}")
        assert asyncio.run(hear()) == ("packet", "other", "packet", "other", "packet")


@pytest.mark.parametrize("packet", [b'{"op":"said"}', LONG], ids=["short", "long"])
def test_gate_that_floods_the_broker_does_not_delay_others(server: Server, packet: bytes) -> None:
    server.vm("vm1")
    with server.speaker() as speaker:
        speaker.send({"v": 1, "op": "open", "vm": "vm1"})
        assert speaker.receive()["event"] == "ready"
        speaker.sock.settimeout(None)
        with flooding(speaker.sock, packet):
            assert slowest_answer(server) < PATIENCE * 1


@pytest.mark.parametrize(
    "packet",
    [
        b'{"event":"usage","channels":{}}',
        b'{"event":"lost","channel":1}',
        b'{"event":"lost","channel":7}',
        b'{"event":"closed","channel":9,"up":1,"down":1,"by":"vm"}',
        b'{"event":"other"}',
        LONG,
    ],
    ids=["usage", "lost", "lost-unknown-channel", "closed", "other", "long"],
)
def test_relay_process_that_floods_the_broker_delays_no_others_and_is_ended(packet: bytes) -> None:
    with running_server(relay_patch=FLOODING_RELAY.format(packet=packet)) as server:
        vm = server.vm("vm1")
        server.open("vm1", "--keep")
        server.reach(server.connect(), vm)
        before = resident(server)
        assert slowest_answer(server) < PATIENCE * 1
        assert resident(server) - before < 4096
        server.write_map("nobody-else", "vm1")
        wait_until(lambda: server.audit("session-end"), "the end")
        wait_until(lambda: not server.relay_processes(), "its process to end")


def test_gates_that_report_without_end_are_dropped(server: Server) -> None:
    """Five at once made others wait for 12.9 s."""
    with contextlib.ExitStack() as running:
        for number in range(5):
            server.vm(f"flood{number}")
        server.write_map(server.user, *(f"flood{number}" for number in range(5)), "vm1")
        wait_until(lambda: len(server.audit("map")) == 2, "the map")
        for number in range(5):
            connection = running.enter_context(other_connection(server))
            speaker = running.enter_context(connection.speaker())
            speaker.send({"v": 1, "op": "open", "vm": f"flood{number}"})
            assert speaker.receive()["event"] == "ready"
            speaker.sock.settimeout(None)
            running.enter_context(flooding(speaker.sock, b'{"op":"said"}'))
        assert slowest_answer(server) < 5
        ends = wait_until(lambda: (all_ := server.audit("session-end"))[4:] and all_, "their ends")
    assert {end["reason"] for end in ends} == {"its gate was dropped: it says too much"}


def test_accepting_leaves_the_others_their_turns() -> None:
    """asyncio's own accept returns without a turn for others while connections wait."""

    async def accept() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        listening = asyncio.ensure_future(listener.run())
        await asyncio.wait_for(all_seen.wait(), 10)
        for task in (counting, listening):
            task.cancel()
        return turns

    seen: list[Peer] = []
    all_seen = asyncio.Event()

    def door(_connection: socket.socket, peer: Peer) -> None:
        seen.append(peer)
        if len(seen) == 320:
            all_seen.set()

    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as sock:
        path = f"{directory}/x.sock"
        sock.bind(path)
        sock.listen(1000)
        sock.setblocking(False)
        listener = Listener(sock, door, lambda _uid: False, Audit(io.StringIO()))
        waiting = []
        for _ in range(320):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].connect(path)
        assert asyncio.run(accept()) >= 10
        for each in waiting:
            each.close()


def test_silent_connections_of_one_session_stop_no_other_of_the_account(server: Server) -> None:
    """Of a shared account: all its sessions have one uid."""
    vm1, vm2 = server.vm("vm1"), server.vm("vm2")
    server.open("vm1")
    server.channel(vm1)
    with other_connection(server) as other:
        other.gate("open --json vm2")
        silent = [other.connect() for _ in range(600)]
        denied = wait_until(lambda: server.denied("channel"), "it")
        reasons = [line["reason"] for line in denied]
        assert reasons == ["16 connections of one session that say nothing"]
        server.channel(vm1, DISPLAY)  # the other one's goes on
        for each in silent:
            each.close()
        viewer = other.connect()
        viewer.settimeout(10)
        wait_until(lambda: reachable(server, other, vm2), "its own channels")
        viewer.close()


def reachable(server: Server, other: OtherConnection, vm: Vm) -> bool:
    """Whether the connection of this person is served."""
    try:
        server.through(other.connect(), vm)
    except (AssertionError, OSError):
        return False
    return True


def test_connections_that_ask_for_nothing_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "UNKNOWN", 3)
    audit = Audit(io.StringIO())
    made = control.Control({}, People(None), Admins(), audit)  # type: ignore[arg-type]
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
    works = [made.door(near, Peer(1, 1000)) for near, _ in pairs]
    other = made.door(pairs[0][0], Peer(2, 1001))
    assert [work is not None for work in works] == [True, True, True, False]
    assert other is not None
    for work in (*works, other):
        if work is not None:
            work.close()
    for near, far in pairs:
        near.close()
        far.close()
