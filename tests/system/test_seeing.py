"""The admin's commands sessions, kick, status, metrics and log, with real viewers and VMs."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.stage.broker import RUN_DIR
from tests.stage.machine import LOGS
from tests.stage.process import Process
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

KEYS = {"id", "user", "vm", "since", "from", "via", "channels", "until"}
KEYS |= {"bytes_up", "bytes_down", "rate_up", "rate_down"}
REASON = "the host restarts at noon"

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _running(broker: Broker) -> None:
    """The broker runs with its usual map."""


def asked(stage: Stage, *words: str, person: Person | None = None) -> tuple[int, str, str]:
    """Run `spicetunnel` on the server as `person` (default: root); exit code, stdout, stderr."""
    places = [] if words[0] == "log" else ["--run-dir", str(RUN_DIR)]
    argv = [str(stage.programs / "spicetunnel"), *words, *places]
    with Process(argv, LOGS / f"spicetunnel-{next(_numbers)}", person=person) as process:
        return process.wait(20), process.out(), process.err()


def sessions(stage: Stage, person: Person | None = None) -> dict[str, dict[str, Any]]:
    """The output of `spicetunnel sessions --json`, by user."""
    code, out, err = asked(stage, "sessions", "--json", person=person)
    assert (code, err) == (0, "")
    return {row["user"]: row for row in json.loads(out)["sessions"]}


def test_admin_sees_all_sessions_and_a_user_their_own(
    stage: Stage, alice: Person, bob: Person, mallory: Person, vm1: Vm, vm2: Vm, screen: Screen
) -> None:
    alices, bobs = (stage.client(person).at(screen) for person in (alice, bob))
    with alices.spice_connect("vm1"), bobs.spice_connect("vm2"):
        rows = wait_until(lambda: busy(sessions(stage)), 30, "both to see their desktop")
        assert {(row["user"], row["vm"]) for row in rows.values()} == {
            (alice.name, "vm1"),
            (bob.name, "vm2"),
        }
        for row in rows.values():
            assert set(row) == KEYS
            assert (row["from"], row["via"], row["until"]) == ("127.0.0.1", "", "")
            assert row["channels"] == 7
            assert row["bytes_down"] > 1000
            age = datetime.now(UTC) - datetime.fromisoformat(row["since"])
            assert 0 <= age.total_seconds() < 60
        assert set(sessions(stage, alice)) == {alice.name}
        assert sessions(stage, mallory) == {}
        refused_to_end(stage, mallory)
        assert set(sessions(stage)) == {alice.name, bob.name}
        _, table, _ = asked(stage, "sessions")
        assert table.splitlines()[-1] == "2 sessions"
    wait_until(lambda: sessions(stage) == {}, 10, "both sessions to end")


def busy(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    there = [row["channels"] == 7 and row["bytes_down"] > 1000 for row in rows.values()]
    return rows if len(there) == 2 and all(there) else {}


def refused_to_end(stage: Stage, person: Person) -> None:
    code, out, err = asked(stage, "kick", "--vm", "vm1", person=person)
    assert (code, out) == (77, "")
    assert err.startswith("spicetunnel: this is for the admins of this server\nhint: ")


def test_kick_reaches_the_persons_terminal_within_a_second(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    mark = stage.broker.mark()
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        session = sessions(stage)[alice.name]["id"]
        code, out, _ = asked(stage, "kick", session, "--reason", REASON)
        kicked = time.monotonic()
        assert (code, out) == (0, f"ended: {session} of {alice.name} at vm1\n")
        client.says(f"your session at 'vm1' was ended by the admin: {REASON}", 1)
        assert client.wait(2) == 77
        assert time.monotonic() - kicked < 2
    vm1.wait_for_no_client()
    line = stage.broker.wait_audit(lambda line: line["event"] == "kick", since=mark)
    assert (line["by"], line["by_uid"], line["user"]) == ("root", 0, alice.name)
    assert asked(stage, "kick", session)[0] == 69


def test_status_and_metrics_report_a_refused_map_and_a_dead_broker(
    stage: Stage, mallory: Person, vm1: Vm
) -> None:
    code, out, _ = asked(stage, "status")
    assert (code, out.splitlines()[0]) == (0, "ok: broker and relay are well")
    assert asked(stage, "status", person=mallory)[0] == 77
    assert not stage.set_map("vms: [")
    code, out, err = asked(stage, "status")
    assert code == 78
    assert "the map was refused, and the one before is in force" in out
    assert err == "hint: 'spicetunnel check' names every problem\n"
    assert "spicetunnel_map_ok 0.0\n" in asked(stage, "metrics")[1]
    assert stage.set_map()
    assert asked(stage, "status")[0] == 0
    stage.broker.kill()
    assert asked(stage, "status")[0] == 69
    code, out, _ = asked(stage, "metrics")
    assert (code, out.splitlines()[-1]) == (0, "spicetunnel_up 0.0")


def test_log_shows_who_used_a_vm_at_a_moment(
    stage: Stage, alice: Person, mallory: Person, vm1: Vm, screen: Screen
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        session = sessions(stage)[alice.name]["id"]
        then = datetime.now(UTC).isoformat()
        assert visit(stage, session, then)["until"] is None
        with stage.client(mallory).at(screen).spice_connect("vm1") as client:
            assert client.wait() == 77
    wait_until(lambda: sessions(stage) == {}, 10, "her session to end")
    found = visit(stage, session, then)
    assert (found["user"], found["client"]) == (alice.name, "127.0.0.1")
    assert found["since"] < found["until"]
    assert found["bytes_down"] > 1000
    log = ["log", "--file", str(stage.broker.log_file), "--since", then]
    code, out, err = asked(stage, *log, "--user", mallory.name)
    assert code == 0
    assert err.startswith("spicetunnel: times are on this server's clock, ")
    assert out.rstrip().endswith("refused: you may not use 'vm1'")


def visit(stage: Stage, session: str, moment: str) -> dict[str, Any]:
    """The log's only session at vm1 at that moment, which must be `session`."""
    log = ["log", "--file", str(stage.broker.log_file), "--json"]
    code, out, _ = asked(stage, *log, "--vm", "vm1", "--at", moment)
    assert code == 0
    (found,) = map(json.loads, out.splitlines())
    assert found["session"] == session
    assert isinstance(found, dict)
    return found
