"""What an operation requires of the asker is checked before its handler runs."""

import asyncio
import io
import json
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from spicetunnel.broker import people as people_module
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.control import Control, Operation
from spicetunnel.broker.peers import peer_of
from spicetunnel.broker.people import Admins, Asker, People
from spicetunnel.common.protocol import Message
from spicetunnel.policy.accounts import Account
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.vmmap import VmMap

if TYPE_CHECKING:
    from spicetunnel.broker.maps import MapStore

ANNE = Account(Identity(os.getuid(), "anne", frozenset()), "/bin/sh")


class Client:
    """Anne's connection, and what the broker does with it."""

    def __init__(self, control: Control, operation: str) -> None:
        near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near = near
        self._far.send(json.dumps({"v": 1, "op": operation}).encode())
        work = control.door(near, peer_of(near))
        assert work is not None
        self.served = asyncio.ensure_future(work)

    def answer(self) -> dict[str, Any]:
        """What it has been told; empty for nothing yet."""
        try:
            return cast("dict[str, Any]", json.loads(self._far.recv(10_000, socket.MSG_DONTWAIT)))
        except BlockingIOError:
            return {}

    def close(self) -> None:
        self._near.close()
        self._far.close()


@pytest.fixture(autouse=True)
def _accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "look_up", lambda _who: ANNE)


def test_one_person_has_so_many_requests_answered_at_once() -> None:
    go_on = asyncio.Event()

    async def slow(gate: GateConnection, _request: Message, _asker: Asker) -> None:
        await go_on.wait()
        gate.send({"event": "done"})

    async def run() -> list[str]:
        people = People(cast("MapStore", SimpleNamespace(current=VmMap())))
        operations = {"list": Operation(slow), "whoami": Operation(slow)}
        control = Control(operations, people, Admins(), Audit(io.StringIO()))
        clients = [Client(control, "list") for _ in range(6)]
        clients.append(Client(control, "whoami"))  # counted by itself
        while not all(each.served.done() for each in clients[4:6]):
            await asyncio.sleep(0.01)
        refused = [each.answer() for each in clients]
        go_on.set()
        await asyncio.gather(*(each.served for each in clients))
        answers = [
            (each.answer() or known)["event"] for each, known in zip(clients, refused, strict=True)
        ]
        assert refused[4]["reason"] == "you ask for too much at once"
        late = Client(control, "list")
        await late.served
        answers.append(late.answer()["event"])
        for each in (*clients, late):
            each.close()
        return answers

    assert asyncio.run(run()) == ["done"] * 4 + ["refused"] * 2 + ["done"] * 2
