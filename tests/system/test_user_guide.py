"""Follows docs/user-guide.md: makes its pictures, and checks the messages that it quotes.

`script/guide` saves the pictures.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.desk import Desk
from tests.stage.door import go_to, open_door
from tests.stage.notifications import CRITICAL, notifications
from tests.stage.people import PREFIX
from tests.stage.stage import CHECKOUT
from tests.stage.vm import SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

GUIDE = (CHECKOUT / "docs/user-guide.md").read_text()


def vm_map(until: datetime | None = None) -> str:
    """carol's VMs: vm1, which alice may use too; build, which is off; lab, closed now; web."""
    now = datetime.now(UTC)
    tomorrow = f"{now + timedelta(days=1):%a} 08:00-12:00"
    when = f"{now - timedelta(hours=1):%H:%M}-{until:%H:%M}" if until else "00:00-24:00"
    return f"""\
timezone: UTC
limits: {{opens-per-minute: 250, sessions-per-user: 250}}
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: {SOCKETS}/vm1.sock
    allow:
      - user: st-alice
      - {{user: st-carol, when: "{when}", take-over: true}}
  build:
    title: build machine
    socket: {SOCKETS}/build.sock
    allow:
      - user: st-carol
  lab:
    title: chemistry lab
    socket: {SOCKETS}/lab.sock
    allow:
      - {{user: st-carol, when: "{tomorrow}"}}
  web:
    title: web test server
    socket: {SOCKETS}/vm2.sock
    allow:
      - user: st-carol
"""


@pytest.fixture
def pc(stage: Stage, broker: Broker, carol: Person) -> Client:
    assert stage.set_map(vm_map())
    return stage.client(carol)


@pytest.fixture
def desk(pc: Client, screen: Screen) -> Iterator[Desk]:
    with Desk(pc, screen) as desk:
        yield desk


def keep(screen: Screen, name: str, window: str = "root") -> None:
    assert f"(captures/{name}.png)" in GUIDE
    if directory := os.environ.get("GUIDE_CAPTURES"):
        screen.screenshot(Path(directory, f"{name}.png"), window)


def timeless(text: str) -> str:
    """`text` with every time replaced by that of the guide."""
    return re.sub(r"\d\d:\d\d", "10:04", text)


def test_picture_of_the_desktop(desk: Desk, vm1: Vm, screen: Screen) -> None:
    desk.terminal.enter("spice-connect vm1")
    desk.place("book-keeping (vm1)", 250, 300)
    screen.wait_for_colour(vm1.colour.rgb)
    keep(screen, "desktop")


def test_picture_of_the_first_run(pc: Client, desk: Desk, screen: Screen) -> None:
    """The run-dir must not be the real one: if a broker runs on this machine, it is the host."""
    file = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    settings = re.sub("(host|run-dir) = .*\n", "", file.read_text())
    file.write_text(settings + 'run-dir = "/nowhere"\n')
    desk.terminal.enter("spice-connect")
    desk.terminal.wait_for("host:")
    desk.terminal.enter("kvm")
    desk.terminal.wait_for("keep it in")
    keep(screen, "first-run", desk.window)
    desk.terminal.press("Enter")
    desk.terminal.wait_for("Enter opens")


def test_picture_of_the_pick(
    stage: Stage, alice: Person, desk: Desk, screen: Screen, vm1: Vm, vm2: Vm
) -> None:
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice")
        desk.terminal.enter("spice-connect")
        desk.terminal.wait_for("busy: st-alice")
        desk.terminal.press("Down")
        keep(screen, "pick", desk.window)


def test_picture_of_the_list_in_a_window(
    stage: Stage, alice: Person, pc: Client, desk: Desk, screen: Screen, vm1: Vm, vm2: Vm
) -> None:
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as held:
        held.says("/spice")
        with pc.at(screen).spice_connect("--window") as client:
            window = screen.wait_for_window("My VMs")
            screen.press("Up", window)
            screen.wait_for_steady(window)
            keep(screen, "window", window)
            screen.press("Escape", window)
            assert client.wait() == 0


def test_picture_of_a_password(stage: Stage, pc: Client, desk: Desk, screen: Screen) -> None:
    with open_door(stage, pc.person) as door:
        go_to(pc, door, PreferredAuthentications="password")
        desk.terminal.enter("spice-connect vm1")
        desk.terminal.wait_for("password:")
        desk.terminal.wait_for("logging in to kvm")
        keep(screen, "password", desk.window)


def test_every_quoted_refusal_is_what_the_client_prints(
    stage: Stage, alice: Person, pc: Client, vm1: Vm
) -> None:
    quoted = re.findall(r"^\| `(.*?)` \|", GUIDE, re.MULTILINE)
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice")
        asked = (["vm1"], ["build"], ["vm2"], ["lab"], ["--host=kmv", "vm1"])
        seen = [refusal(pc, *words) for words in asked]
    assert seen == quoted


def refusal(pc: Client, *words: str) -> str:
    with pc.spice_connect("--no-viewer", *words) as client:
        assert client.wait(20) != 0
        _, _, said = client.err().rpartition("spice-connect: ")
    reason, _, hint = said.partition("\n")
    assert hint.startswith("hint: ")
    return timeless(reason).replace(PREFIX, "")


def test_picture_of_a_warning(stage: Stage, pc: Client, vm1: Vm, screen: Screen) -> None:
    with notifications(pc.at(screen)) as desktop, Desk(pc, screen, desktop.access) as desk:
        desk.terminal.enter("spice-connect --full-screen vm1")
        screen.wait_for_colour(vm1.colour.rgb, at_least=0.6)
        assert stage.set_map(vm_map(datetime.now(UTC) + timedelta(minutes=5)))
        desktop.wait_for("CRITICAL", "your time at 'vm1' ends", "save now")
        screen.wait_for_colour(CRITICAL, at_least=0.01)
        keep(screen, "warning")
