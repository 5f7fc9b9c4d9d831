"""A Unix socket's path has 107 bytes: no user's name and no directory may spoil a session by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stage.stage import MAP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

MAX_SOCKET_PATH = 107
NEAR_END = "/spice-0123456789ab/spice"
#: useradd(8) allows no longer one: st- and this are 32 characters.
LONG_NAME = "x" * 29


def test_the_longest_user_name(stage: Stage, broker: Broker, screen: Screen, vm1: Vm) -> None:
    person = stage.person(LONG_NAME)
    assert len(person.name) == 32
    assert stage.set_map(MAP.replace("st-alice", person.name))
    with stage.client(person).at(screen).spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Client:
    return stage.client(alice).at(screen)


def long_directory(person: Person, length: int) -> Path:
    path = person.home
    while len(str(path)) < length - 50:
        path = person.directory(path / ("d" * 20))
    return person.directory(path / ("d" * (length - len(str(path)) - 1)))


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_runtime_directory_at_the_limit_and_beyond(
    pc: Client, vm1: Vm, screen: Screen, beyond: int
) -> None:
    """With one byte more, it is as if there was none."""
    runtime = long_directory(pc.person, MAX_SOCKET_PATH - len(NEAR_END) + beyond)
    with pc.spice_connect("vm1", env={"XDG_RUNTIME_DIR": str(runtime)}):
        screen.wait_for_colour(vm1.colour.rgb)
        used = list(runtime.iterdir())
        assert len(used) == 1 - beyond
        assert all(len(f"{path}/spice") == MAX_SOCKET_PATH for path in used)
    vm1.wait_for_no_client()
