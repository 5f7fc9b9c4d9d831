"""Messages of the server are shown as desktop notifications too, even over a full screen."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.notifications import CRITICAL, NORMAL, Desktop, notifications
from tests.stage.stage import MAP
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Client:
    """alice's PC, with a full-screen viewer."""
    pc = stage.client(alice).at(screen)
    config = Path(pc.env["XDG_CONFIG_HOME"]) / "spice-connect/config.toml"
    viewer = '"remote-viewer", "--full-screen"'
    config.write_text(config.read_text().replace('"remote-viewer"', viewer))
    return pc


@pytest.fixture
def desktop(pc: Client) -> Iterator[Desktop]:
    """With a window manager, which a full-screen window needs."""
    with pc.run("matchbox-window-manager", "-use_titlebar", "no"), notifications(pc) as desktop:
        yield desktop


def test_warning_is_shown_over_a_full_screen_viewer(
    stage: Stage, pc: Client, desktop: Desktop, vm1: Vm, screen: Screen
) -> None:
    with pc.spice_connect("vm1", env=desktop.access):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: fills_the_screen(screen, "book-keeping"), 10, "a full screen")
        end = datetime.now(UTC) + timedelta(minutes=5)
        when = f"{end - timedelta(hours=1):%H:%M}-{end:%H:%M}"
        alices = "- user: st-alice\n"
        with_end = MAP.replace(alices, f'- {{user: st-alice, when: "{when}"}}\n', 1)
        assert stage.set_map("timezone: UTC\n" + with_end)
        desktop.wait_for("CRITICAL", "'spice-connect'", "your time at 'vm1' ends", "save now")
        screen.wait_for_colour(CRITICAL, at_least=0.01)
        assert fills_the_screen(screen, "book-keeping")
        keep_screenshot(screen, "notify-warning")


def fills_the_screen(screen: Screen, title: str) -> bool:
    return screen.look(screen.wait_for_window(title)).width == screen.look().width


def keep_screenshot(screen: Screen, name: str) -> None:
    """Save a screenshot in $SCREENSHOTS, if it is set."""
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"{name}.png"))


def test_take_over_is_shown_after_the_window_has_closed(
    stage: Stage, pc: Client, desktop: Desktop, carol: Person, vm1: Vm, screen: Screen
) -> None:
    with pc.spice_connect("vm1", env=desktop.access) as client:
        screen.wait_for_colour(vm1.colour.rgb)
        with stage.client(carol).spice_connect("--take-over", "--no-viewer", "vm1"):
            assert client.wait() == 75
            desktop.wait_for("CRITICAL", "your seat at 'vm1' was taken over by st-carol")
            screen.wait_for_colour(CRITICAL, at_least=0.01)
            keep_screenshot(screen, "notify-take-over")


def test_stop_of_the_vm_is_shown(pc: Client, desktop: Desktop, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("vm1", env=desktop.access):
        screen.wait_for_colour(vm1.colour.rgb)
        vm1.kill()
        desktop.wait_for("NORMAL", "'vm1' has stopped; waiting 60 s for its restart")
        screen.wait_for_colour(NORMAL, at_least=0.01)
        keep_screenshot(screen, "notify-restart")
        vm1.start()
        screen.wait_for_colour(vm1.colour.rgb)
