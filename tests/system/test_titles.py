"""VM titles of all sorts, on the real screen and in a real terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.stage import MAP
from tests.stage.tmux import Tmux
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

TITLE = "Windows 10, book-keeping"
JOINER = "\N{WORD JOINER}"  # it keeps remote-viewer from putting the monitor's number in

#: What the map says, and what the window's title has of it.
TITLES = {
    "spaces": ("  two  spaces  ", "two  spaces  "),  # we look at it without the first ones
    "quotes": ('it\'s "so" `called`', 'it\'s "so" `called`'),
    "percents": ("100 % %s %d %%d", f"100 % %s %{JOINER}d %%{JOINER}d"),
    "emoji": ("Büro 日本 💻", "Büro 日本 💻"),
    "backslashes": (r"C:\new\temp\s", r"C:\new\temp\s"),
    "dash": ("--help", "--help"),
    "shell": ("$(id) `id` ;|&<>*", "$(id) `id` ;|&<>*"),
    "markup": ("<b>&amp;</b> [bold]", "<b>&amp;</b> [bold]"),
    "keyfile": ("[virt-viewer]; #x=y", "[virt-viewer]; #x=y"),
}


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Iterator[Client]:
    """alice's, with a window manager that shows titles."""
    pc = stage.client(alice).at(screen)
    with pc.run("openbox", "--sm-disable"):
        yield pc


@pytest.mark.parametrize("name", TITLES)
def test_the_window_has_the_title(
    stage: Stage, pc: Client, vm1: Vm, screen: Screen, name: str
) -> None:
    title, shown = TITLES[name]
    assert stage.set_map(MAP.replace(TITLE, json.dumps(title, ensure_ascii=False)))
    with pc.spice_connect("vm1"):
        wait_until(
            lambda: f"{shown} (vm1) (1)" in window_titles(screen),
            20,
            lambda: f"the title {shown!r}; there is {window_titles(screen)}",
        )
        screen.wait_for_colour(vm1.colour.rgb)
        keep_screenshot(screen, name)


def window_titles(screen: Screen) -> list[str]:
    return list(screen.windows().values())


def keep_screenshot(screen: Screen, name: str) -> None:
    """For somebody to look at, where they say so."""
    if directory := os.environ.get("SCREENSHOTS"):
        screen.screenshot(Path(directory, f"title-{name}.png"))


STEERING = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\r\u202eevil\x9b31m\u2066"


def test_the_map_takes_none_that_steers_a_terminal(stage: Stage, broker: Broker) -> None:
    for character in set(STEERING) - set(" [];0123ademnoJrvwil"):
        assert not stage.set_map(MAP.replace(TITLE, json.dumps(f"a{character}b"))), character


#: Says what a server that has gone over to the other side would say.
SERVER = """#!/usr/bin/python3
import json, os, socket, sys, time
if "-V" in sys.argv:
    sys.exit("OpenSSH_9.2p1")
title = json.loads({title!r})
vm = dict(name="vm1", title=title, state="free", busy_by=title, until="", next="")
if "list" in sys.argv:
    print(json.dumps(dict(event="vms", vms=[vm])), flush=True)
    sys.exit(0)
near = socket.socket(socket.AF_UNIX)
near.bind(sys.argv[sys.argv.index("-L") + 1].split(":")[0])
near.listen()
print(title, flush=True)
print(json.dumps(dict(event="notice", reason=title, hint=title)), flush=True)
print(json.dumps(dict(event="ready", session="", title=title)), flush=True)
time.sleep(1000)
"""
VIEWER = """#!/usr/bin/python3
import sys, time
print(open(sys.argv[-1]).read(), file=open({seen!r}, "w"), flush=True)
time.sleep(1000)
"""


def test_a_fake_server_cannot_steer_terminal_or_viewer(pc: Client) -> None:
    seen = pc.home("seen")
    ssh = own(pc, "hostile-ssh", SERVER.format(title=json.dumps(STEERING)))
    viewer = own(pc, "seeing-viewer", VIEWER.format(seen=str(seen)))
    config = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    config.write_text(f'host = "kvm"\nssh = ["{ssh}"]\nviewer = ["{viewer}"]\n')
    shown = "?]0;owned??[31mred?[2J??evil?31m?"
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect -v vm1")
        terminal.wait_for(f"spice-connect: {shown}")
        terminal.wait_for(f"hint: {shown}")
        terminal.wait_for(f"server says: {shown}")
        wait_until(lambda: seen.exists() and "title=" in seen.read_text(), 10, "the viewer")
        terminal.press("C-c")
        terminal.wait_for_prompt()
        assert terminal.title() != "owned"
        assert "\x1b[31m" not in terminal.coloured()
        terminal.enter("clear; spice-connect")
        terminal.wait_for(shown)
        terminal.press("Escape")
        terminal.wait_gone(shown)
    assert f"title={shown} (vm1)\n" in seen.read_text()


def own(pc: Client, name: str, text: str) -> str:
    path = pc.home(name)
    path.write_text(text)
    return str(pc.person.owns(path, 0o700))
