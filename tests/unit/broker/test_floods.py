"""Who sends without end does not delay others, and does not fill the broker's memory."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.broker.connection import Connection
from tests.unit.broker.server import PATIENCE, Server, running_server, wait_until

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
