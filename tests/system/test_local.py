"""On the KVM host itself, without ssh: the same broker decides, and the desktop appears.

For people at the console with a `where: console` grant, see test_console_sessions.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stage.broker import TUNNEL
from tests.stage.waiting import wait_until
from tests.system.test_console_sessions import CONSOLE_MAP

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: Another user's viewer on the same host: sends the link message of a main channel to tunnel.sock.
INTRUDER = """\
import socket, struct, sys
viewer = socket.socket(socket.AF_UNIX)
viewer.connect(sys.argv[1])
body = struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18)
try:
    viewer.sendall(struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body)
    heard = viewer.recv(100)
except (BrokenPipeError, ConnectionResetError):
    heard = b""
print("heard", heard)
"""


@pytest.fixture(autouse=True)
def _running(broker: Broker) -> None:
    """The broker runs with its usual map."""


def here(stage: Stage, person: Person, *arguments: str, screen: Screen | None = None) -> Process:
    client = stage.client(person)
    return (client.at(screen) if screen else client).spice_connect("--host", "local:", *arguments)


def test_the_desktop_appears_without_ssh(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    mark = stage.broker.mark()
    with here(stage, alice, "vm1", screen=screen) as client:
        client.until(lambda: screen.wait_for_window("book-keeping"), 30, "the viewer")
        screen.wait_for_colour(vm1.colour.rgb)
        assert client.err() == ""
    vm1.wait_for_no_client()
    end = stage.broker.wait_audit(lambda line: line["event"] == "session-end", since=mark)
    assert (end["user"], end["vm"], "client" in end) == (alice.name, "vm1", False)


def test_the_list_has_the_persons_vms(stage: Stage, alice: Person, vm1: Vm) -> None:
    with here(stage, alice) as client:
        assert client.wait() == 0
        assert [line.split()[0] for line in client.out().splitlines()] == ["VM", "vm1", "vm3"]


def test_a_person_without_a_grant_is_refused_as_over_ssh(
    stage: Stage, mallory: Person, vm1: Vm
) -> None:
    with here(stage, mallory, "vm1", screen=stage.screen) as client:
        assert client.wait() == 77
        assert client.err().splitlines() == [
            "spice-connect: you may not use 'vm1'",
            "hint: list the VMs you may use, or ask the admin",
        ]


def test_a_process_on_the_host_is_not_at_the_console(stage: Stage, alice: Person, vm1: Vm) -> None:
    assert stage.set_map(CONSOLE_MAP)
    with here(stage, alice, "vm1", screen=stage.screen) as client:
        assert client.wait() == 77
        assert "only at the console of this server" in client.err()


def test_another_user_of_the_host_cannot_join_the_session(
    stage: Stage, alice: Person, mallory: Person, vm1: Vm, screen: Screen
) -> None:
    with here(stage, alice, "vm1", screen=screen):
        screen.wait_for_colour(vm1.colour.rgb)
        before, mark = vm1.spice_clients(), stage.broker.mark()
        with stage.client(mallory).run("/usr/bin/python3", "-c", INTRUDER, str(TUNNEL)) as intruder:
            assert intruder.wait() == 0
            assert intruder.out() == "heard b''\n"
        denied = stage.broker.wait_audit(lambda line: line["event"] == "channel", since=mark)
        assert (denied["decision"], denied["uid"]) == ("deny", mallory.uid)
        assert vm1.spice_clients() == before


def test_killing_the_broker_does_not_end_the_session(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    mark = stage.broker.mark()
    with here(stage, alice, "vm1", screen=screen) as client:
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: vm1.spice_clients() > 1, 10, "the viewer's channels")
        stage.broker.kill()
        stage.broker.restart()
        stage.broker.wait_audit(lambda line: line["event"] == "resume", since=mark)
        assert client.alive()
    vm1.wait_for_no_client()
