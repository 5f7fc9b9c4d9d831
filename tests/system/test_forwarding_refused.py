"""The login works, and the tunnel does not: the person is told why, and no viewer is left."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.stage.broker import RUN_DIR, TUNNEL
from tests.stage.machine import AUTHORIZED_KEYS, processes, words
from tests.stage.sshd import Sshd
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


#: Opens a channel, sees its end, and stays, as remote-viewer does with its box.
VIEWER = """
import signal, socket, sys
(path,) = [line[10:].strip() for line in open(sys.argv[1]) if line.startswith("unix-path=")]
with socket.socket(socket.AF_UNIX) as tunnel:
    tunnel.connect(path)
    tunnel.recv(1)
signal.pause()
"""
TOLD = "spice-connect: kvm does not forward to its spicetunnel"
KEY_OPTIONS = f'port-forwarding,permitopen="[{TUNNEL}]:*"'


@pytest.fixture
def key(alice: Person) -> Iterator[Person]:
    """alice, whose authorized_keys are as before after the test."""
    file = AUTHORIZED_KEYS / alice.name
    before = file.read_text()
    yield alice
    file.write_text(before)


def restrict(person: Person, options: str) -> None:
    file = AUTHORIZED_KEYS / person.name
    file.write_text(f"{options} {file.read_text()}")


@pytest.fixture
def pc(stage: Stage, broker: Broker, key: Person, vm1: Vm, screen: Screen) -> Client:
    del broker, vm1
    return stage.client(key).at(screen)


def is_told(pc: Client) -> None:
    """With a viewer that stays; the seat is free again."""
    pc.configure(viewer=["python3", "-c", VIEWER])
    with pc.spice_connect("vm1") as client:
        assert client.wait(20) == 69, client.err()
        assert client.out() == ""
        told, hint = client.err().splitlines()[-2:]
    assert told == TOLD
    assert f"before your key, {KEY_OPTIONS}" in hint
    assert [words(pid) for pid in processes({pc.person.uid}) if "python3 -c" in words(pid)] == []


@pytest.mark.parametrize("options", ["restrict", 'permitopen="localhost:80"', "no-port-forwarding"])
@pytest.mark.usefixtures("transport")
def test_options_before_the_key(stage: Stage, pc: Client, options: str) -> None:
    restrict(pc.person, options)
    is_told(pc)


@pytest.mark.parametrize("option", ["AllowStreamLocalForwarding no", "PermitOpen none"])
@pytest.mark.usefixtures("transport")
def test_an_sshd_that_does_not_forward(stage: Stage, pc: Client, option: str) -> None:
    earlier = f"Match User *\n    {option}\n\nMatch Group"
    with Sshd("closed", stage.drop_in().replace("Match Group", earlier, 1)) as sshd:
        pc.goes_to(sshd)
        is_told(pc)


def test_the_options_that_the_hint_names_are_enough(pc: Client, vm1: Vm, screen: Screen) -> None:
    restrict(pc.person, f"restrict,{KEY_OPTIONS}")
    with pc.spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
    vm1.wait_for_no_client()


def test_remote_viewer_is_ended_with_its_box(pc: Client, screen: Screen) -> None:
    restrict(pc.person, "restrict")
    with pc.spice_connect("vm1") as client:
        assert client.wait(20) == 69, client.err()
        assert TOLD in client.err()
    wait_until(lambda: not screen.windows(), 5, "the box to go")


@pytest.mark.usefixtures("transport")
def test_a_viewer_of_the_person_s_own(stage: Stage, pc: Client) -> None:
    restrict(pc.person, "restrict")
    with stage.client(pc.person).spice_connect("--no-viewer", "vm1") as client:
        path = client.says("/spice\n", 20).strip()
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.connect(path)
            assert client.wait(10) == 69
        assert TOLD in client.err()


def test_another_run_directory_is_told_before_the_viewer_starts(pc: Client) -> None:
    pc.configure(viewer=["false"])
    with pc.spice_connect("--run-dir", "/run/elsewhere", "vm1") as client:
        assert client.wait(20) == 78
        assert client.err() == (
            f"spice-connect: the tunnel of kvm is {TUNNEL}, not /run/elsewhere/tunnel.sock\n"
            f'hint: --run-dir {RUN_DIR}, or run-dir = "{RUN_DIR}" in the configuration\n'
        )


def test_a_forwarding_of_the_person_s_own_that_is_refused_ends_nothing(
    pc: Client, vm1: Vm, screen: Screen
) -> None:
    """Where the words are the same, the number of the channel tells them apart."""
    near = pc.home("other.sock")
    pc.prefer(LocalForward=f"{near} /run/nowhere.sock")
    with pc.spice_connect("--no-viewer", "vm1") as client:
        path = client.says("/spice\n", 20).strip()
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(near))
                assert other.recv(1) == b""
        client.says("open failed", 10)
        with pc.run("remote-viewer", f"spice+unix://{path}"):
            screen.wait_for_colour(vm1.colour.rgb)
        assert client.alive()
    near.unlink(missing_ok=True)


@pytest.mark.parametrize("status", [0, 1])
def test_a_viewer_that_ends_before_it_shows_anything_has_failed(pc: Client, status: int) -> None:
    """Also one that hands over to another process, which then has no tunnel."""
    pc.configure(viewer=["sh", "-c", f"exit {status}"])
    with pc.spice_connect("vm1") as client:
        assert client.wait(20) == 69, client.err()
        assert "spice-connect: the viewer " in client.err()


def test_a_viewer_that_is_closed_has_not_failed(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        screen.close_window(screen.wait_for_window("book-keeping"))
        assert (client.wait(20), client.err()) == (0, "")
