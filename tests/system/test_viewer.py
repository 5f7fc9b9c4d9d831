"""The real viewer does as it is told through spice-connect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.picture import Picture
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
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Iterator[Client]:
    """alice's, with a window manager: a window cannot fill the screen by itself."""
    pc = stage.client(alice).at(screen)
    with pc.run("matchbox-window-manager", "-use_titlebar", "no"):
        yield pc


#: The picture's own first column is blended with what is around it; a border is wider.
EDGE = 2


def reaches_the_edge(screen: Screen, vm: Vm) -> bool:
    """The VM's picture, the screen's: a window that is only maximised has a border of its own."""
    whole = screen.look()
    rows = range(3 * EDGE, len(whole.pixels), 3 * whole.width)
    column = b"".join(whole.pixels[at : at + 3] for at in rows)
    return Picture(1, whole.height, column).colour_share(vm.colour.rgb) > 0.5


def test_full_screen_covers_the_screen(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("--full-screen", "vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: reaches_the_edge(screen, vm1), 10, "a full screen")
        keep_screenshot(screen, "full-screen")


def test_an_option_of_its_own_reaches_the_viewer(pc: Client, vm1: Vm, screen: Screen) -> None:
    """A kiosk is a full screen too."""
    with pc.spice_connect("vm1", "--", "--kiosk", "--kiosk-quit=on-disconnect"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: reaches_the_edge(screen, vm1), 10, "a full screen")
        keep_screenshot(screen, "kiosk")


def keep_screenshot(screen: Screen, name: str) -> None:
    """For somebody to look at, where they say so."""
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"viewer-{name}.png"))
