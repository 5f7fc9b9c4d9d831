"""A temporary grant: root gives it, the user uses it over the real path, and it expires."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.stage.broker import RUN_DIR, STATE_DIR
from tests.stage.command import run
from tests.stage.stage import MAP_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

SECONDS = 12


@pytest.fixture(autouse=True)
def _nothing_granted(broker: Broker, stage: Stage) -> Iterator[None]:
    yield
    for each in grants(stage):
        admin(stage, "revoke", each["id"])


def admin(stage: Stage, command: str, *words: str) -> str:
    """Run `spicetunnel` as root, for the stage's broker; returns its output."""
    return run(str(stage.programs / "spicetunnel"), command, *words, "--run-dir", str(RUN_DIR))


def grants(stage: Stage) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(admin(stage, "grants", "--json"))["grants"]
    return found


def listed(client: Client) -> list[dict[str, Any]]:
    with client.ssh("kvm", "list --json") as ssh:
        assert ssh.wait(15) == 0
        found: list[dict[str, Any]] = json.loads(ssh.out())["vms"]
    return found


def explained(stage: Stage, person: Person) -> dict[str, Any]:
    places = ("--map", str(MAP_FILE), "--state-dir", str(STATE_DIR))
    program = str(stage.programs / "spicetunnel")
    found: dict[str, Any] = json.loads(
        run(program, "explain", person.name, "vm1", "--json", *places)
    )
    return found


def test_a_temporary_grant_gives_access_until_it_expires(
    stage: Stage, mallory: Person, vm1: Vm, screen: Screen
) -> None:
    client = stage.client(mallory).at(screen)
    assert listed(client) == []
    said = admin(stage, "grant", mallory.name, "vm1", "--for", f"{SECONDS}s", "--reason", "a test")
    assert said.startswith(f"{mallory.name} may use 'vm1' until ")
    (given,) = grants(stage)
    until = datetime.fromisoformat(given["until"])
    with client.spice_connect("vm1") as viewing:
        screen.wait_for_colour(vm1.colour.rgb)
        (row,) = listed(client)
        assert (row["name"], row["busy_by"]) == ("vm1", mallory.name)
        assert datetime.fromisoformat(row["until"]) == until
        assert explained(stage, mallory)["grant"]["temporary"] == given["id"]
        assert viewing.wait(SECONDS + 15) == 77
        late = (datetime.now(UTC) - until).total_seconds()
        assert 0 <= late < 2.5
        assert "you may no longer use 'vm1'" in viewing.err()
        assert "your time there is over" in viewing.err()
    vm1.wait_for_no_client()
    stage.broker.wait_audit(lambda line: line["event"] == "grant-end")
    assert listed(client) == []
    assert grants(stage) == []
    assert mallory.name not in MAP_FILE.read_text()


def test_a_temporary_grant_survives_a_restart_and_can_be_revoked(
    stage: Stage, mallory: Person, vm1: Vm, screen: Screen
) -> None:
    admin(stage, "grant", mallory.name, "vm1", "--for", "1h")
    stage.broker.restart()
    with stage.client(mallory).at(screen).spice_connect("vm1") as viewing:
        screen.wait_for_colour(vm1.colour.rgb)
        admin(stage, "revoke", mallory.name, "vm1")
        assert viewing.wait(5) == 77
        assert "you may no longer use 'vm1'" in viewing.err()
    vm1.wait_for_no_client()
