"""After a restart of the VM or a loss of the network, the viewer opens again by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import processes, words
from tests.stage.sshd import ALIAS
from tests.stage.stage import NO_VMS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: Only spice-connect's ssh has this in its command line.
SSH = "ExitOnForwardFailure"
#: The sshd process of alice's connection, which runs as alice.
SSHD = "sshd: st-alice@"
LOST = f"the connection to {ALIAS} was lost"


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, screen: Screen) -> Iterator[Client]:
    """alice's PC. Before and after, none of her processes runs."""
    wait_for_nobody(alice)
    yield stage.client(alice).at(screen)
    wait_for_nobody(alice)


def wait_for_nobody(person: Person, seconds: float = 5) -> None:
    wait_until(
        lambda: not list(processes({person.uid})),
        seconds,
        lambda: f"{person.name}'s processes to end: {list(map(words, processes({person.uid})))}",
    )


def pid_of(person: Person, program: str) -> int:
    """The id of their only process with `program` in its command line."""
    (found,) = [pid for pid in processes({person.uid}) if program in words(pid)]
    return found


def close_window(screen: Screen, vm: Vm) -> None:
    screen.close_window(screen.wait_for_window(vm.name))


def wait_until_dark(screen: Screen, vm: Vm) -> None:
    wait_until(lambda: screen.colour_share(vm.colour.rgb) < 0.05, 10, "the window to close")


def test_vm_that_starts_again_is_shown_again(
    pc: Client, alice: Person, vm1: Vm, screen: Screen
) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        ssh = pid_of(alice, SSH)
        for _ in range(2):
            vm1.kill()
            wait_until_dark(screen, vm1)
            client.until(lambda: "has stopped" in client.err()[-80:], 10, "the client to say so")
            vm1.start()
            screen.wait_for_colour(vm1.colour.rgb)
        assert pid_of(alice, SSH) == ssh
        before = vm1.look()
        screen.type("hello", screen.wait_for_window("vm1"))
        wait_until(lambda: vm1.look() != before, 10, "the typed text to reach the VM")
        close_window(screen, vm1)
        assert client.wait() == 0
        once = [
            "spice-connect: 'vm1' has stopped; waiting 60 s for its restart",
            "spice-connect: 'vm1' is ready",
        ]
        assert client.err().splitlines() == once * 2
    vm1.wait_for_no_client()


def test_vm_that_stops_while_the_broker_is_slow_is_waited_for(
    pc: Client, alice: Person, vm1: Vm, broker: Broker, screen: Screen
) -> None:
    """The relay keeps the viewer from seeing it until the client has been told."""
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        viewer = pid_of(alice, "remote-viewer")
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            vm1.kill()
            time.sleep(2)  # longer than the client waits for the server's word
            assert viewer in processes({alice.uid})
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        client.says("has stopped")
        vm1.start()
        screen.wait_for_colour(vm1.colour.rgb)
        close_window(screen, vm1)
        assert client.wait() == 0


def test_vm_that_starts_again_at_once_is_shown_again(pc: Client, vm1: Vm, screen: Screen) -> None:
    """It runs again before the broker has checked whether it is off."""
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        window = screen.wait_for_window("vm1")
        vm1.kill()
        vm1.start()
        client.says("'vm1' is ready")
        wait_until(lambda: window not in screen.windows(), 5, "the old window to close")
        screen.wait_for_colour(vm1.colour.rgb)
        close_window(screen, vm1)
        assert client.wait() == 0


def test_window_closed_by_the_user_is_not_opened_again(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        close_window(screen, vm1)
        assert client.wait(2) == 0
        assert client.err() == ""


def test_no_reconnect_ends_when_the_vm_stops(pc: Client, vm1: Vm, screen: Screen) -> None:
    with pc.spice_connect("--no-reconnect", "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        vm1.kill()
        assert client.wait(4) == 69
        assert client.err().splitlines()[0] == "spice-connect: 'vm1' has stopped"


def test_wait_shows_a_vm_when_it_starts(pc: Client, screen: Screen, stage: Stage) -> None:
    with pc.spice_connect("--wait", "vm3") as client:
        client.says("'vm3' is not running; waiting")
        with stage.vm("vm3") as vm3:
            screen.wait_for_colour(vm3.colour.rgb)
            close_window(screen, vm3)
            assert client.wait() == 0
        assert [line for line in client.err().splitlines() if "hint" not in line] == [
            "spice-connect: 'vm3' is not running; waiting for it to start",
            "spice-connect: 'vm3' is ready",
        ]


def test_ctrl_c_ends_the_wait_for_a_vm(pc: Client, alice: Person) -> None:
    with pc.spice_connect("--wait", "vm3") as client:
        client.says("'vm3' is not running; waiting")
        client.ctrl_c()
        assert client.wait() == 130
        wait_for_nobody(alice, 2)


class Network:
    """alice's ssh connects through `nc`, which can be killed and kept from starting again."""

    def __init__(self, pc: Client) -> None:
        self.person = pc.person
        self._frozen = 0
        self._is_down: Path = pc.home("network-is-down")
        # Not `exec`: ssh adds one before the command.
        script = f"test ! -e {self._is_down} && exec nc %h %p"
        config = pc.ssh_config
        config.write_text(f"{config.read_text()}    ProxyCommand sh -c '{script}'\n")

    def cut(self) -> None:
        """The server does not notice, as with a cable that was pulled out: its sshd is stopped."""
        self._is_down.touch()
        self._frozen = pid_of(self.person, SSHD)
        os.kill(self._frozen, signal.SIGSTOP)
        os.kill(pid_of(self.person, "nc 127.0.0.1"), signal.SIGKILL)

    def come_back(self) -> None:
        self._is_down.unlink()

    def let_the_server_notice(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._frozen, signal.SIGCONT)


@pytest.fixture
def network(pc: Client) -> Iterator[Network]:
    network = Network(pc)
    yield network
    network.let_the_server_notice()


@pytest.mark.usefixtures("transport")
def test_connection_closed_by_the_server_is_made_again(
    pc: Client, alice: Person, vm1: Vm, screen: Screen
) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        ssh = pid_of(alice, SSH)
        os.kill(pid_of(alice, SSHD), signal.SIGKILL)
        client.says(f"connected to {ALIAS} again", 15)
        screen.wait_for_colour(vm1.colour.rgb)
        assert pid_of(alice, SSH) != ssh
        close_window(screen, vm1)
        assert client.wait() == 0
        ours = [x for x in client.err().splitlines() if x.startswith(("spice-connect", "hint"))]
        assert ours == [
            f"spice-connect: {LOST}; connecting again",
            "hint: Ctrl-C ends the trying",
            f"spice-connect: connected to {ALIAS} again",
        ]


def test_network_that_drops_unnoticed_by_the_server_is_connected_again(
    pc: Client, network: Network, vm1: Vm, screen: Screen, stage: Stage
) -> None:
    """The old session still has the VM's only seat when its user connects again; it is replaced."""
    mark = stage.broker.mark()
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        network.cut()
        client.says(f"{LOST}; connecting again")
        wait_until_dark(screen, vm1)
        wait_until(lambda: client.err().count("UNKNOWN port") > 1, 10, "a failed attempt")
        assert vm1.spice_clients()  # the server has not noticed
        network.come_back()
        client.says(f"connected to {ALIAS} again", 20)
        screen.wait_for_colour(vm1.colour.rgb)
        lines = stage.broker.audit(mark)
        assert [x["decision"] for x in lines if x["event"] == "open"] == ["allow", "allow"]
        network.let_the_server_notice()
        stage.broker.wait_audit(
            lambda x: x["event"] == "session-end" and "again" in x["reason"], since=mark
        )
        assert client.alive()
        close_window(screen, vm1)
        assert client.wait() == 0
    vm1.wait_for_no_client()


def test_grant_removed_while_the_network_was_down_is_refused_afterwards(
    pc: Client, network: Network, vm1: Vm, screen: Screen, stage: Stage
) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        network.cut()
        client.says(f"{LOST}; connecting again")
        assert stage.set_map(NO_VMS)
        network.come_back()
        assert client.wait(20) == 77
        assert "spice-connect: you may not use 'vm1'" in client.err()
        network.let_the_server_notice()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_client_that_is_ended_while_it_reconnects_leaves_nothing(
    pc: Client, network: Network, vm1: Vm, screen: Screen, how: signal.Signals
) -> None:
    with pc.spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        network.cut()
        client.says(f"{LOST}; connecting again")
        network.let_the_server_notice()
        client.signal(how)
        assert client.wait(2) == (130 if how == signal.SIGINT else -9)
        wait_for_nobody(pc.person, 2)
        assert [path for path in pc.runtime_dir.iterdir() if path.name.startswith("spice-")] == []
    vm1.wait_for_no_client()


def test_no_reconnect_ends_when_the_connection_is_lost(
    pc: Client, alice: Person, vm1: Vm, screen: Screen
) -> None:
    with pc.spice_connect("--no-reconnect", "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        os.kill(pid_of(alice, SSHD), signal.SIGKILL)
        assert client.wait(4) == 69
        assert client.err().splitlines()[-1] == f"spice-connect: {LOST}"


def test_no_viewer_keeps_the_sockets_path_over_a_reconnect(
    pc: Client, alice: Person, vm1: Vm
) -> None:
    with pc.spice_connect("--no-viewer", "vm1") as client:
        client.until(lambda: client.out().count("\n") == 1, 10, "the path")
        os.kill(pid_of(alice, SSHD), signal.SIGKILL)
        client.until(lambda: client.out().count("\n") == 2, 15, "the path again")
        assert len(set(client.out().splitlines())) == 1
        client.ctrl_c()
        assert client.wait() == 130
