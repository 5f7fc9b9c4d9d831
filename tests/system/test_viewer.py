"""The real viewer does as it is told through spice-connect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

TITLE = "book-keeping"


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Iterator[Client]:
    """alice's, with a window manager: a window cannot fill the screen by itself."""
    pc = stage.client(alice).at(screen)
    with pc.run("matchbox-window-manager", "-use_titlebar", "no"):
        yield pc


def fills_the_screen(screen: Screen) -> bool:
    """All of it, with no menu of the viewer's above."""
    window, whole = screen.look(screen.wait_for_window(TITLE)), screen.look()
    return (window.width, window.height) == (whole.width, whole.height)


def test_full_screen_covers_the_screen(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("--full-screen", "vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: fills_the_screen(screen), 10, "a full screen")
        keep_screenshot(screen, "full-screen")


def test_an_option_of_its_own_reaches_the_viewer(pc: Client, vm1: Vm, screen: Screen) -> None:
    """A kiosk is a full screen too."""
    with pc.spice_connect("vm1", "--", "--kiosk", "--kiosk-quit=on-disconnect"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: fills_the_screen(screen), 10, "a full screen")
        keep_screenshot(screen, "kiosk")


def keep_screenshot(screen: Screen, name: str) -> None:
    """For somebody to look at, where they say so."""
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"viewer-{name}.png"))
