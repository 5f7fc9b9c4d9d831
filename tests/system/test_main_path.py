"""The main path with real programs: from the typed command to the VM's desktop."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.stage.broker import TUNNEL
from tests.stage.stage import NO_VMS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

TITLES = {"vm1": "Windows 10, book-keeping", "vm2": "web test server"}
#: The channels that remote-viewer opens to a VM with sound and USB.
SEVEN = {"main", "display", "inputs", "cursor", "playback", "record", "usbredir"}


@pytest.fixture(autouse=True)
def _running(broker: Broker) -> None:
    """The broker runs with its usual map."""


@pytest.mark.usefixtures("transport")
def test_spice_connect_shows_the_desktop(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    mark = stage.broker.mark()
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        window = client.until(lambda: screen.wait_for_window(TITLES["vm1"]), 30, "the viewer")
        assert "vm1" in screen.windows()[window]
        screen.wait_for_colour(vm1.colour.rgb)
        before = vm1.look()
        screen.type("hello", window)
        wait_until(lambda: vm1.look() != before, 10, "the typed text to reach the VM")
        wait_until(lambda: len(channels(stage, mark)) == len(SEVEN), 10, "all channels")
        assert client.err() == ""
    assert {line["type"] for line in channels(stage, mark)} == SEVEN
    vm1.wait_for_no_client()
    end = stage.broker.wait_audit(lambda line: line["event"] == "session-end", since=mark)
    assert (end["user"], end["vm"], end["client"]) == (alice.name, "vm1", "127.0.0.1")
    display = stage.broker.wait_audit(
        lambda line: line["event"] == "channel-end" and line["type"] == "display", since=mark
    )
    assert display["bytes_down"] > 1000


def channels(stage: Stage, mark: int) -> list[dict[str, str]]:
    lines = stage.broker.audit(mark)
    return [x for x in lines if x["event"] == "channel" and x["decision"] == "allow"]


def test_plain_ssh_and_remote_viewer_show_the_desktop(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """As the README describes it, without our client."""
    pc = stage.client(alice).at(screen)
    near = pc.home("vm1.sock")  # ssh does not delete it: spice-connect does, with its directory
    with pc.ssh("-L", f"{near}:{TUNNEL}", "kvm", "open", "vm1") as ssh:
        assert ssh.says("ready") == "vm1 is ready: connect your viewer to the forwarded socket\n"
        for _ in range(2):  # the viewer can be closed and opened again
            with pc.run("remote-viewer", f"spice+unix://{near}"):
                screen.wait_for_colour(vm1.colour.rgb)
            vm1.wait_for_no_client()
        assert ssh.alive()


def test_two_vms_at_once_are_shown_in_two_windows(
    stage: Stage, carol: Person, vm1: Vm, vm2: Vm, screen: Screen
) -> None:
    pc = stage.client(carol).at(screen)
    with pc.spice_connect("vm1") as one, pc.spice_connect("vm2") as two:
        for client, vm in ((one, vm1), (two, vm2)):
            client.until(partial(shows, screen, vm), 30, f"{vm.name}'s screen in its window")


def shows(screen: Screen, vm: Vm) -> bool:
    """Whether the window with the VM's title shows the VM's screen."""
    window = next((w for w, title in screen.windows().items() if TITLES[vm.name] in title), "")
    if not window:
        return False
    screen.raise_window(window)  # another window may cover it
    return screen.colour_share(vm.colour.rgb, window) > 0.5


def test_ssh_list_is_a_readable_table(stage: Stage, alice: Person, vm1: Vm) -> None:
    with stage.client(alice).ssh("kvm", "list") as ssh:
        assert ssh.wait() == 0
        assert ssh.out().splitlines() == [
            "VM   STATE  TITLE",
            "vm1  free   Windows 10, book-keeping",
            "vm3  off",
        ]


def test_ssh_without_a_command_lists_the_vms(stage: Stage, alice: Person) -> None:
    with stage.client(alice).ssh("-T", "kvm") as ssh:
        assert ssh.wait() == 0
        assert ssh.out().startswith("VM   STATE  TITLE\n")


@pytest.mark.usefixtures("transport")
def test_spice_connect_without_arguments_lists_the_vms(
    stage: Stage, carol: Person, vm1: Vm, vm2: Vm
) -> None:
    with stage.client(carol).spice_connect() as client:
        assert client.wait() == 0
        assert "vm1" in client.out()
        assert TITLES["vm2"] in client.out()
        assert "vm3" not in client.out()


def test_list_as_json(stage: Stage, alice: Person, vm1: Vm) -> None:
    with stage.client(alice).spice_connect("--json") as client:
        assert client.wait() == 0
        vms = json.loads(client.out())["vms"]
    assert vms[0] == {
        "name": "vm1",
        "host": "kvm",
        "title": TITLES["vm1"],
        "state": "free",
        "busy_by": "",
        "until": "",
        "next": "",
        "zone": "",
        "limits": [],
        "take_over": False,
    }


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    ("vm", "code", "reason", "hint"),
    [
        ("vm2", 77, "you may not use 'vm2'", "hint: "),
        ("vm99", 77, "you may not use 'vm99'", "hint: "),
        ("vm3", 69, "'vm3' is not running", "hint: spice-connect --wait waits for it"),
        ("../vm1", 64, "", "hint: "),
    ],
)
def test_refusal_says_why_and_what_to_do(
    stage: Stage, alice: Person, vm: str, code: int, reason: str, hint: str
) -> None:
    with stage.client(alice).at(stage.screen).spice_connect(vm) as client:
        assert client.wait() == code
        said = client.err().splitlines()
        assert client.out() == ""
    assert said[0].startswith(f"spice-connect: {reason}")
    assert said[1].startswith(hint)
    assert len(said) == 2


def test_busy_vm_is_refused_without_take_over(
    stage: Stage, alice: Person, carol: Person, vm1: Vm, screen: Screen
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        with stage.client(carol).at(screen).spice_connect("vm1") as second:
            assert second.wait() == 75
            assert f"'vm1' is in use by {alice.name} since" in second.err()
            assert "hint: --take-over" in second.err()
        screen.wait_for_colour(vm1.colour.rgb)
        assert vm1.spice_clients() == len(SEVEN)


@pytest.mark.usefixtures("transport")
def test_take_over_is_told_to_the_person_who_loses_the_seat(
    stage: Stage, alice: Person, carol: Person, vm1: Vm, screen: Screen
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1") as first:
        screen.wait_for_colour(vm1.colour.rgb)
        with stage.client(carol).at(screen).spice_connect("--take-over", "vm1"):
            assert first.wait() == 75
            assert f"your seat at 'vm1' was taken over by {carol.name}" in first.err()
            screen.wait_for_colour(vm1.colour.rgb)


def test_client_says_that_the_broker_is_down(stage: Stage, alice: Person) -> None:
    stage.broker.kill()
    with stage.client(alice).at(stage.screen).spice_connect("vm1") as client:
        assert client.wait() == 70
        assert "broker does not answer" in client.err()
        assert "hint: tell the admin" in client.err()


def test_removing_the_grant_ends_the_session(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        assert stage.set_map(NO_VMS)
        assert client.wait(2) == 77
        assert "you may no longer use 'vm1'" in client.err()
        vm1.wait_for_no_client()
