"""spice-connect's options and settings for viewers, with real viewers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import LOGS
from tests.stage.picture import Picture
from tests.stage.screen import TwoMonitors
from tests.stage.stage import CHECKOUT
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


README = (CHECKOUT / "README.md").read_text()


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Iterator[Client]:
    """alice's PC, with a window manager, which a full-screen window needs."""
    pc = stage.client(alice).at(screen)
    with pc.run("matchbox-window-manager", "-use_titlebar", "no"):
        yield pc


#: The column of pixels to check: the first one is blended with the background; a border is wider.
EDGE = 2


def reaches_the_edge(screen: Screen, vm: Vm) -> bool:
    """Whether the VM's picture reaches the screen's edge. A maximised window has a border."""
    whole = screen.look()
    rows = range(3 * EDGE, len(whole.pixels), 3 * whole.width)
    column = b"".join(whole.pixels[at : at + 3] for at in rows)
    return Picture(1, whole.height, column).colour_share(vm.colour.rgb) > 0.5


def test_full_screen_covers_the_screen(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("--full-screen", "vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: reaches_the_edge(screen, vm1), 10, "a full screen")
        keep_screenshot(screen, "full-screen")


def test_options_after_the_double_dash_reach_the_viewer(
    pc: Client, vm1: Vm, screen: Screen
) -> None:
    """remote-viewer's --kiosk shows a full screen too."""
    with pc.spice_connect("vm1", "--", "--kiosk", "--kiosk-quit=on-disconnect"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: reaches_the_edge(screen, vm1), 10, "a full screen")
        keep_screenshot(screen, "kiosk")


def test_the_viewer_opens_on_the_named_monitor(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm
) -> None:
    with TwoMonitors(LOGS / "two-monitors") as screen:
        pc = stage.client(alice).at(screen)
        with pc.run("openbox", "--sm-disable"):
            screen.wait_for_window_manager()
            with pc.spice_connect("--monitors", "2", "vm1"):
                wait_until(lambda: share(screen, vm1) > 0.6, 20, "the VM on the second monitor")
                assert screen.colour_share(vm1.colour.rgb) == share(screen, vm1) / 2
                keep_screenshot(screen, "monitors")
        vm1.wait_for_no_client()
    assert not list(pc.runtime_dir.glob("spice-*"))


def share(screen: Screen, vm: Vm) -> float:
    """The share of the second monitor that shows the VM."""
    return screen.look().right_half().colour_share(vm.colour.rgb)


def test_hot_key_from_the_configuration(pc: Client, vm1: Vm, screen: Screen) -> None:
    configure(pc, 'hot-keys = { toggle-fullscreen = "ctrl+alt+z" }')
    with pc.spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        assert not reaches_the_edge(screen, vm1)
        wait_until(lambda: vm1.spice_clients() == 7, 10, "the viewer to open all its channels")
        screen.press("ctrl+alt+z", screen.wait_for_window("book-keeping"))
        wait_until(lambda: reaches_the_edge(screen, vm1), 10, "a full screen")


@pytest.mark.usefixtures("transport")
def test_a_viewer_without_unix_sockets_can_use_a_port(
    stage: Stage, broker: Broker, alice: Person, mallory: Person, vm1: Vm, screen: Screen
) -> None:
    """Every local user can reach the port, as the notice says. While the viewer is connected,
    another main channel is refused."""
    pc = stage.client(alice).at(screen)
    configure(pc, "viewer-port = true")
    with pc.spice_connect("vm1") as client:
        said = client.says("everybody on this machine can reach this VM at 127.0.0.1:")
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: vm1.spice_clients() == 7, 10, "the viewer to open all its channels")
        port = re.findall(r"127\.0\.0\.1:(\d+)", said)[0]
        with stage.client(mallory).run("/usr/bin/python3", "-c", INTRUDER, port) as intruder:
            assert intruder.wait() == 0, intruder.err()
            assert "refused 9" in intruder.out()
        assert vm1.spice_clients() == 7
    vm1.wait_for_no_client()


#: Sends a main channel's link message, and prints the SpiceLinkReply's error. 9 is "not available".
INTRUDER = """\
import socket, struct, sys
viewer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
body = struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18)
viewer.sendall(struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body)
answer = viewer.recv(20, socket.MSG_WAITALL)
print("refused", struct.unpack("<I", answer[16:20])[0])
"""


def test_spicy_works_with_the_documented_template(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen
) -> None:
    (template,) = re.findall(r'^ *viewer = (\["spicy".*?\])', README, re.MULTILINE)
    pc = stage.client(alice).at(screen)
    configure(pc, f"viewer = {template}")
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        keep_screenshot(screen, "spicy")
        client.ctrl_c()
        assert client.wait() == 130
    vm1.wait_for_no_client()


def configure(pc: Client, line: str) -> None:
    """Set `line` in the configuration; replaces a line with the same key."""
    file = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    key = line.split(" = ", maxsplit=1)[0]
    others = [one for one in file.read_text().splitlines() if not one.startswith(f"{key} = ")]
    file.write_text("\n".join([*others, line, ""]))


def keep_screenshot(screen: Screen, name: str) -> None:
    """Save a screenshot in $SCREENSHOTS, if it is set."""
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"viewer-{name}.png"))
