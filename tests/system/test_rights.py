"""Grants with conditions (channels, view-only, times, groups), with the real viewer and QEMU."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.stage import MAP
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

ALICES = "      - user: st-alice\n"


@pytest.fixture(autouse=True)
def _running(broker: Broker) -> None:
    """The broker runs, and gets its usual map back afterwards."""


def give(stage: Stage, conditions: str, head: str = "") -> None:
    """Add these conditions to alice's grant on vm1; `head` goes before the map."""
    granted = MAP.replace(ALICES, f"      - {{user: st-alice, {conditions}}}\n", 1)
    assert stage.set_map(head + granted)


def channels(stage: Stage, mark: int, decision: str) -> set[str]:
    """Of vm1 alone: of an earlier test's session, the log still tells how many refusals it had."""
    about_vm1 = [x for x in stage.broker.audit(mark) if x.get("vm") == "vm1"]
    lines = [x for x in about_vm1 if x["event"] == "channel"]
    if decision == "deny":
        return {x["reason"].split()[0] for x in lines if x["decision"] == "deny"}
    return {x["type"] for x in lines if x["decision"] == "allow"}


def test_view_only_shows_the_screen_and_typing_does_nothing(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    give(stage, "view-only: true")
    mark = stage.broker.mark()
    with stage.client(alice).at(screen).spice_connect("-v", "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: "inputs" in channels(stage, mark, "deny"), 10, "the inputs channel")
        before = vm1.look()
        screen.type("nobody hears this", screen.wait_for_window("book-keeping"))
        time.sleep(1)  # there is no event to wait for: nothing must happen
        assert vm1.look() == before
        assert screen.colour_share(vm1.colour.rgb) > 0.25
        assert client.alive()
        assert viewers_warnings(client.err()) == []
    assert channels(stage, mark, "allow") == {"main", "display", "cursor", "playback"}
    assert channels(stage, mark, "deny") == {"inputs", "usbredir", "record"}


def viewers_warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if "viewer says" in line and "WARNING" in line]


def test_denied_channels_do_not_disturb_the_others(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    give(stage, "channels: {deny: [usbredir, webdav, record, playback]}")
    mark = stage.broker.mark()
    with stage.client(alice).at(screen).spice_connect("-v", "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        before = vm1.look()
        screen.type("hello", screen.wait_for_window("book-keeping"))
        wait_until(lambda: vm1.look() != before, 10, "the typed text to reach the VM")
        assert viewers_warnings(client.err()) == []
    assert channels(stage, mark, "deny") == {"usbredir", "record", "playback"}


def test_the_end_of_the_time_window_ends_the_session(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """With the real clock: the window ends with this minute or the next."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    if (end - datetime.now(UTC)).total_seconds() < 8:
        end += timedelta(minutes=1)
    begin = end - timedelta(hours=1)
    when = f"{begin:%H:%M}-{end:%H:%M}"
    give(stage, f'when: "{when}"', head="timezone: UTC\n")
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        assert client.wait(130) == 77
        late = (datetime.now(UTC) - end).total_seconds()
        assert -0.5 < late < 2.5
        assert "you may no longer use 'vm1'" in client.err()
        assert "your next window opens" in client.err()
    vm1.wait_for_no_client()


def test_leaving_the_group_ends_the_session(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """The broker checks groups again every few seconds, because it is not told of changes."""
    group = "st-accounting"
    run("groupadd", "--system", "--force", group)
    try:
        run("gpasswd", "--add", alice.name, group)
        assert stage.set_map(MAP.replace(ALICES, f"      - group: {group}\n", 1))
        with stage.client(alice).at(screen).spice_connect("vm1") as client:
            screen.wait_for_colour(vm1.colour.rgb)
            run("gpasswd", "--delete", alice.name, group)
            assert client.wait(20) == 77
            assert "you may no longer use 'vm1'" in client.err()
    finally:
        run("groupdel", group)
