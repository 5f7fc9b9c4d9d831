"""A person's day: what their list, window and terminal tell, and the list in a window."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.stage.tmux import Tmux
from tests.stage.vm import SOCKETS

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: The machine's clock shows UTC. carol may only look on at vm2; her lab opens in 2030.
MAP = f"""\
timezone: Asia/Tokyo
limits: {{opens-per-minute: 250, sessions-per-user: 250}}
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: {SOCKETS}/vm1.sock
    allow: [{{user: st-alice}}, {{user: st-carol, take-over: true}}]
  vm2:
    title: web test server
    socket: {SOCKETS}/vm2.sock
    allow: [{{user: st-carol, view-only: true}}]
  lab:
    socket: {SOCKETS}/lab.sock
    allow: [{{user: st-carol, starts: 2030-01-02}}]
"""


@pytest.fixture
def pc(stage: Stage, broker: Broker, carol: Person, vm1: Vm, vm2: Vm) -> Client:
    assert stage.set_map(MAP)
    return stage.client(carol)


def logins(stage: Stage) -> int:
    return stage.sshd.log().count("Accepted publickey")


def test_view_only_is_told_in_list_title_and_terminal(
    stage: Stage, pc: Client, screen: Screen
) -> None:
    with pc.spice_connect("--list") as shown:
        assert shown.wait() == 0
        assert "web test server           free, view-only" in shown.out()
    with pc.spice_connect("--json") as shown:
        assert shown.wait() == 0
        rows = {row["name"]: row for row in json.loads(shown.out())["vms"]}
        assert (rows["vm2"]["limits"], rows["vm1"]["limits"]) == (["view-only"], [])
        assert rows["lab"]["next"] == "2030-01-02T00:00:00+09:00"
    with pc.at(screen).spice_connect("vm2") as client:
        screen.wait_for_window("web test server (vm2), view-only")
        assert client.err() == "spice-connect: your rights at 'vm2': view-only\n"


def test_times_are_the_persons_own_and_plain_ssh_names_the_zone(pc: Client) -> None:
    with pc.spice_connect("--list") as shown:
        assert shown.wait() == 0
        assert "opens 2030-01-01 15:00 UTC" in shown.out()
    with pc.spice_connect("--no-viewer", "lab") as refused:
        assert refused.wait() == 77
        assert "your next window opens 2030-01-01 15:00 UTC\n" in refused.err()
    with pc.ssh("kvm", "open", "lab") as refused:
        assert refused.wait() == 77
        assert "opens Wed 2030-01-02 at 00:00 (Asia/Tokyo)\n" in refused.err()
    with pc.ssh("kvm", "list") as shown:
        assert shown.wait() == 0
        assert "opens 2030-01-02 00:00 (Asia/Tokyo)" in shown.out()


def test_list_and_open_take_one_login_and_a_busy_vm_is_waited_for(
    stage: Stage, pc: Client, alice: Person, screen: Screen, vm1: Vm
) -> None:
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as held:
        held.says("/spice")
        before = logins(stage)
        with Tmux(pc.at(screen)) as terminal:
            terminal.enter("spice-connect")
            terminal.wait_for("Enter opens, Esc leaves")
            terminal.type("vm1")
            terminal.press("Enter")
            terminal.wait_for("'vm1' is busy: st-alice: Enter waits for it, Ctrl-T takes it over")
            terminal.press("Escape")
            terminal.wait_for("1 of 3")
            terminal.press("Enter", "Enter")
            terminal.wait_for("waiting for 'vm1'")
            held.stop()
            screen.wait_for_colour(vm1.colour.rgb)
            assert logins(stage) == before + 1
            terminal.press("C-c")
            terminal.wait_for_prompt()


def test_the_pick_is_fresh_and_takes_over_on_the_same_login(
    stage: Stage, pc: Client, alice: Person, screen: Screen, vm1: Vm
) -> None:
    with Tmux(pc.at(screen)) as terminal:
        terminal.enter("spice-connect")
        terminal.wait_for("vm1  Windows 10, book-keeping  free")
        before = logins(stage)
        with stage.client(alice).spice_connect("--no-viewer", "vm1") as held:
            terminal.wait_for("busy: st-alice")
            terminal.press("End", "Up", "Enter", "C-t")
            screen.wait_for_colour(vm1.colour.rgb)
            assert held.wait() == 75
        assert logins(stage) == before + 1  # alice's
        terminal.press("C-c")
        terminal.wait_for_prompt()


def test_a_list_in_a_window(
    stage: Stage, pc: Client, alice: Person, screen: Screen, vm1: Vm
) -> None:
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as held:
        held.says("/spice")
        with pc.at(screen).run("openbox", "--sm-disable"):
            screen.wait_for_window_manager()
            with pc.at(screen).spice_connect("--window") as client:
                window = screen.wait_for_window("My VMs")
                screen.press("Up", window)  # from vm2, the first that is free
                screen.wait_for_steady(window)
                screen.press("alt+w", window)
                screen.wait_for_window("Please wait")
                held.stop()
                screen.wait_for_colour(vm1.colour.rgb)
                screen.close_window(screen.wait_for_window("book-keeping"))
                assert client.wait() == 0


def test_a_failure_is_a_window_too(pc: Client, screen: Screen) -> None:
    with pc.at(screen).spice_connect("--window", "--host", "kmv") as client:
        window = screen.wait_for_window("spice-connect")
        screen.wait_for_steady(window)
        screen.press("Escape", window)
        assert client.wait() == 69
        assert "no host called kmv was found" in client.err()
