"""A VM's title is untrusted text: the window shows it exactly, and it has no other effect."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import RUN
from tests.stage.sshd import Sshd
from tests.stage.tmux import Tmux
from tests.stage.vm import SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: remote-viewer replaces %d by the monitor's number, so the client puts an invisible character in
#: between. Without %d, remote-viewer adds MONITOR at the end.
UNBROKEN, BROKEN = "%d", "%\N{WORD JOINER}d"
MONITOR = " (1)"

TITLES = {
    "signs": """50 % of "A" & 'B', <b>C</b>; $HOME `id` \\n C:\\new\\ %d %s %%d""",
    "emoji": "  two leading spaces, \N{PENGUIN} \N{CJK UNIFIED IDEOGRAPH-684C} é",
    "dash": "--help",
}

#: Control sequences for a terminal, and characters that change the direction of text.
ORDERS = {
    "the terminal's title": "\x1b]0;pwned\x07",
    "a colour": "\x1b[31m",
    "a colour, in C1": "\x9b31m",
    "a cleared screen": "\x1b[2J",
    "a new line": "\r\npc$ rm -rf",
    "a new line, in C1": "\x85",
    "a line separator": "\u2028",
    "backspaces": "\b\b\b",
    "turned round": "\u202egpj.exe",
    "isolated": "\u2067x\u2069",
}
#: All ORDERS in a row, as the client shows them.
SHOWN = "?]0;pwned??[31m?31m?[2J??pc$ rm -rf??????gpj.exe?x?"


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Client:
    return stage.client(alice).at(screen)


def map_with(title: str) -> str:
    # YAML needs escapes for unprintable characters, but JSON's surrogate escapes are invalid there.
    quoted = json.dumps(title, ensure_ascii=not title.isprintable())
    return f"""\
limits: {{opens-per-minute: 250, sessions-per-user: 250}}
vms:
  vm1:
    title: {quoted}
    socket: {SOCKETS}/vm1.sock
    allow:
      - user: st-alice
"""


@pytest.mark.parametrize("name", TITLES)
def test_the_window_shows_the_exact_title(
    stage: Stage, pc: Client, vm1: Vm, screen: Screen, name: str
) -> None:
    assert stage.set_map(map_with(TITLES[name]))
    with pc.spice_connect("vm1") as client:
        window = client.until(lambda: screen.wait_for_window("(vm1)"), 30, "the viewer")
        assert screen.title(window) == f"{TITLES[name].replace(UNBROKEN, BROKEN)} (vm1){MONITOR}"
        screen.wait_for_colour(vm1.colour.rgb)
        keep_screenshot(screen, name)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_map_refuses_a_title_with_control_characters(
    stage: Stage, broker: Broker, order: str
) -> None:
    assert not stage.set_map(map_with(f"a{order}b"))


@pytest.fixture(scope="module")
def forger(stage: Stage) -> Iterator[Sshd]:
    """A fake server: a real sshd whose gate prints a forged title. The gate stays sshd's child."""
    gate = stage.programs / "spicetunnel-gate"
    forged = json.dumps("".join(ORDERS.values()))[1:-1].replace("\\", r"\\")
    script = RUN / "forged-gate"
    script.write_text(
        "#!/bin/bash\n"
        f"""exec {gate} "$@" > >(exec sed -u 's/Windows 10, book-keeping/{forged}/')\n"""
    )
    script.chmod(0o755)
    drop_in = stage.drop_in()
    assert f"exec {gate}" in drop_in
    with Sshd("forger", drop_in.replace(f"exec {gate}", f"exec {script}")) as sshd:
        yield sshd


@pytest.fixture
def terminal(pc: Client, forger: Sshd) -> Iterator[Tmux]:
    go_to(pc, forger)
    with Tmux(pc, columns=400) as terminal:
        title, record = terminal.title(), terminal.record()
        yield terminal
        assert terminal.title() == title
        seen = record.read_bytes()
    assert SHOWN.encode() in seen
    assert not [name for name, order in ORDERS.items() if order.encode() in seen]


def test_control_characters_in_a_fake_servers_title_are_replaced(
    terminal: Tmux, vm1: Vm, screen: Screen
) -> None:
    terminal.enter("spice-connect")
    terminal.wait_for(f"{SHOWN}  ")
    terminal.press("Escape")
    terminal.wait_gone(f"{SHOWN}  ")
    terminal.enter("spice-connect --list")
    terminal.wait_for(f"{SHOWN}  ")
    terminal.enter("spice-connect -v vm1")
    assert screen.title(screen.wait_for_window("(vm1)")) == f"{SHOWN} (vm1){MONITOR}"
    screen.wait_for_colour(vm1.colour.rgb)
    keep_screenshot(screen, "orders")
    terminal.press("C-c")
    terminal.wait_for("^C")


def test_control_characters_are_replaced_in_a_title_argument_too(
    pc: Client, terminal: Tmux, vm1: Vm, screen: Screen
) -> None:
    config = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    kept = [line for line in config.read_text().splitlines() if not line.startswith("viewer")]
    viewer = 'viewer = ["remote-viewer", "--title", "{title}", "{file}"]'
    config.write_text("\n".join([*kept, viewer, ""]))
    terminal.enter("spice-connect -v vm1")
    terminal.wait_for(f"{SHOWN} (vm1)")
    assert screen.title(screen.wait_for_window("(vm1)")) == f"{SHOWN} (vm1){MONITOR}"
    screen.wait_for_colour(vm1.colour.rgb)
    terminal.press("C-c")
    terminal.wait_for("^C")


def go_to(pc: Client, sshd: Sshd) -> None:
    lines = f"    Port {sshd.port}\n    UserKnownHostsFile {sshd.known_hosts}\n"
    pc.ssh_config.write_text(f"Host kvm\n{lines}" + pc.ssh_config.read_text())


def keep_screenshot(screen: Screen, name: str) -> None:
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"title-{name}.png"))
