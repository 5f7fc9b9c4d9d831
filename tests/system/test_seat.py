"""Two people with a screen each: whoever has the seat sees the VM, and the loser's window closes.

The screenshots are kept in out/.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.stage.bootsector import Colour
from tests.stage.machine import LOGS
from tests.stage.screen import VirtualScreen
from tests.stage.stage import CHECKOUT
from tests.stage.vm import SOCKETS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

PICTURES = CHECKOUT / "out" / "take-over"


@pytest.fixture
def carols_screen() -> Iterator[VirtualScreen]:
    with VirtualScreen(LOGS / "xvfb-carol") as screen:
        yield screen


def picture(screen: Screen, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    screen.screenshot(PICTURES / f"{name}.png")


def has_viewer(screen: Screen) -> bool:
    return any("book-keeping" in title for title in screen.windows().values())


def test_take_over_between_two_users_with_both_screens_captured(
    stage: Stage,
    broker: Broker,
    alice: Person,
    carol: Person,
    vm1: Vm,
    screen: Screen,
    carols_screen: VirtualScreen,
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1") as loser:
        screen.wait_for_colour(vm1.colour.rgb)
        assert not has_viewer(carols_screen)
        picture(screen, "1-before-alice")
        picture(carols_screen, "1-before-carol")
        mark = broker.mark()
        with stage.client(carol).at(carols_screen).spice_connect("--take-over", "vm1") as winner:
            carols_screen.wait_for_colour(vm1.colour.rgb)
            assert loser.wait(5) == 75
            wait_until(lambda: not has_viewer(screen), 5, "the loser's window to close")
            picture(screen, "2-after-alice")
            picture(carols_screen, "2-after-carol")
            said = loser.err().splitlines()
            who_and_when = f"spice-connect: your seat at 'vm1' was taken over by {carol.name} at "
            assert re.fullmatch(re.escape(who_and_when) + r"\d\d:\d\d", said[-2])
            assert said[-1].startswith("hint: ")
            before = vm1.look()
            carols_screen.type("mine", carols_screen.wait_for_window("book-keeping"))
            wait_until(lambda: vm1.look() != before, 10, "carol's text to reach the VM")
            assert winner.alive()
    order = [(x["event"], x["user"]) for x in broker.audit(mark) if x["event"] in EVENTS]
    cut = order.index(("channel-end", alice.name))
    assert cut < order.index(("channel", carol.name)), (
        "the loser must be cut before the new main channel"
    )


EVENTS = {"channel", "channel-end"}


SHARED = f"""\
vms:
  class:
    title: book-keeping class
    socket: {SOCKETS}/class.sock
    seat: shared
    allow:
      - user: [st-alice, st-carol]
"""


def test_shared_seat_shows_the_vm_to_both_on_their_own_screens(
    stage: Stage,
    broker: Broker,
    alice: Person,
    carol: Person,
    screen: Screen,
    carols_screen: VirtualScreen,
) -> None:
    """QEMU must allow several clients; by default, SPICE disconnects the first one."""
    several = {"SPICE_DEBUG_ALLOW_MC": "1"}
    with stage.extra_vm("class", Colour.MAGENTA, env=several) as vm:
        assert stage.set_map(SHARED)
        with (
            stage.client(alice).at(screen).spice_connect("class") as one,
            stage.client(carol).at(carols_screen).spice_connect("class") as two,
        ):
            for each in (screen, carols_screen):
                each.wait_for_colour(vm.colour.rgb)
            before = vm.look()
            carols_screen.type("together", carols_screen.wait_for_window("book-keeping"))
            wait_until(lambda: vm.look() != before, 10, "carol's text to reach the VM")
            picture(screen, "3-shared-alice")
            picture(carols_screen, "3-shared-carol")
            assert one.alive()
            assert two.alive()
            assert screen.colour_share(vm.colour.rgb) > 0.25
            with stage.gate_ssh(alice, "list") as listed:
                assert listed.wait() == 0
                assert f"shared ({alice.name}, {carol.name})" in listed.out()


def test_guest_that_reboots_keeps_its_viewer(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """QEMU goes on, so the connection and the window stay."""
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        window = screen.wait_for_window("book-keeping")
        screen.type("gone with the reboot", window)
        written = vm1.look()
        vm1.qmp("system_reset")
        wait_until(lambda: vm1.look() != written, 20, "the guest to start again")
        screen.wait_for_colour(vm1.colour.rgb)
        assert screen.wait_for_window("book-keeping") == window
        assert client.err() == ""


def test_seat_is_free_after_ssh_was_killed(
    stage: Stage, broker: Broker, alice: Person, carol: Person, vm1: Vm
) -> None:
    """The seat is free within two seconds after ssh was killed."""
    with stage.gate_ssh(alice, "open vm1") as ssh:
        ssh.says("vm1 is ready")
        ssh.kill()
        wait_until(lambda: free_for(stage, carol), 2, "the seat to be free")


def free_for(stage: Stage, person: Person) -> bool:
    with stage.gate_ssh(person, "list") as ssh:
        assert ssh.wait() == 0
        return "vm1  free" in ssh.out()
