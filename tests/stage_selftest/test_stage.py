"""The stage works as described. Otherwise the tests that run on it would prove nothing."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import LOGS, RUN, processes, words
from tests.stage.process import Process
from tests.stage.sockets import is_listening
from tests.stage.tmux import Tmux
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture
def viewer(vm1: Vm, screen: Screen) -> Iterator[Process]:
    """The real remote-viewer, run by root, connected directly to the VM's socket."""
    env = {**screen.access, "XDG_RUNTIME_DIR": str(RUN), "NO_AT_BRIDGE": "1"}
    env["GSETTINGS_BACKEND"] = "memory"
    argv = ["remote-viewer", "--title", "straight", f"spice+unix://{vm1.socket}"]
    with Process(argv, LOGS / "viewer", env=env) as viewer:
        screen.wait_for_colour(vm1.colour.rgb)
        yield viewer
    vm1.wait_for_no_client()


def test_a_viewer_shows_the_vms_colour_and_no_other(
    viewer: Process, vm1: Vm, screen: Screen
) -> None:
    wait_until(lambda: vm1.spice_clients() == 7, 10, "the viewer to open all its channels")
    assert "straight" in screen.windows()[screen.wait_for_window("straight")]
    assert screen.colour_share((0, 170, 0)) < 0.01
    assert viewer.err() == ""


def test_a_typed_key_shows_on_the_vms_screen(viewer: Process, vm1: Vm, screen: Screen) -> None:
    before = vm1.look()
    screen.type("hello", screen.wait_for_window("straight"))
    wait_until(lambda: vm1.look() != before, 10, "the echo")


def test_an_untouched_screen_stays_as_it_is(vm2: Vm) -> None:
    """So a test can prove by an unchanged screen that typing had no effect."""
    assert vm2.look() == vm2.look()


def test_only_the_brokers_user_can_connect_to_a_vm(stage: Stage, vm1: Vm, alice: Person) -> None:
    argv = ["nc", "-U", "-z", str(vm1.socket)]
    broker = stage.service("broker")
    with Process(argv, LOGS / "nc-broker", person=broker) as allowed:
        assert allowed.wait() == 0, allowed.tail()
    with Process(argv, LOGS / "nc-alice", person=alice) as refused:
        assert refused.wait() != 0
    assert "Permission denied" in refused.err()


def test_a_killed_vm_leaves_a_dead_socket_and_starts_again(vm2: Vm) -> None:
    vm2.kill()
    assert vm2.socket.is_socket()
    assert not is_listening(vm2.socket)
    assert is_listening(vm2.start().socket)


def test_naive_sshd_denies_a_command_and_forwards_to_any_socket(
    stage: Stage, alice: Person
) -> None:
    """A ForceCommand alone does not restrict forwarding."""
    sshd = stage.naive_sshd
    with Process([*sshd.ssh_argv(alice), "id"], LOGS / "naive-command") as denied:
        assert denied.wait() == 0, denied.tail()
    assert denied.out() == "DENIED\n"

    local, secret = RUN / "local.sock", RUN / "secret.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(secret))
        secret.chmod(0o777)
        server.listen()
        forward = sshd.ssh_argv(alice, "-N", "-L", f"{local}:{secret}")
        with Process(forward, LOGS / "naive-forward") as ssh:
            ssh.until(lambda: is_listening(local), 10, "the forwarding")
            with socket.socket(socket.AF_UNIX) as attacker:
                attacker.connect(str(local))
                attacker.sendall(b"in")
                server.settimeout(10)
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(2) == b"in"


def test_a_person_outside_the_group_has_a_shell(stage: Stage) -> None:
    """So it is the drop-in's Match, not the stage, that denies a shell to the gateway's users."""
    admin = stage.person("admin", gateway=False)
    with Process([*stage.naive_sshd.ssh_argv(admin), "id -un"], LOGS / "shell") as ssh:
        assert ssh.wait() == 0, ssh.tail()
    assert ssh.out() == "st-admin\n"


def test_an_account_that_is_not_the_stages_is_never_used(stage: Stage) -> None:
    from tests.stage.command import run
    from tests.stage.people import PREFIX

    name = PREFIX + "foreign"
    run("useradd", "--system", "--home-dir", "/nonexistent", name)
    try:
        with pytest.raises(StageError, match="is not the stage's"):
            stage.person("foreign")
    finally:
        run("userdel", name)


def test_a_user_name_of_32_characters_works(stage: Stage) -> None:
    longest = stage.person("long" * 7 + "r")
    assert len(longest.name) == 32
    assert os.stat(longest.home).st_mode & 0o777 == 0o700


def test_a_terminal_can_be_typed_in_and_read(stage: Stage, alice: Person) -> None:
    with Tmux(stage.client(alice), columns=40) as terminal:
        terminal.enter("id -un; printf 'x%.0s' $(seq 50); echo; tput cols; test -t 0 && echo tty")
        lines = terminal.wait_for_prompt()
        assert lines[-5:] == ["st-alice", "x" * 40, "x" * 10, "40", "tty"]
        terminal.type("sleep 1000")
        terminal.press("Enter")
        wait_until(
            lambda: any("sleep 1000" in words(pid) for pid in processes({alice.uid})),
            10,
            "the command to run",
        )
        terminal.press("C-c")
        terminal.wait_for("^C")
        terminal.wait_for_prompt()
