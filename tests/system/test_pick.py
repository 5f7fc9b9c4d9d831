"""The list from which a user picks a VM, in a real terminal."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.tmux import Tmux
from tests.stage.vm import SOCKETS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: carol's VMs: vm1 (alice may use it too), vm2 (free), build (off, with special characters in its
#: title), and lab (her grant starts in 2030).
MAP = f"""\
timezone: UTC
limits: {{opens-per-minute: 250, sessions-per-user: 250}}
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: {SOCKETS}/vm1.sock
    allow: [{{user: st-alice}}, {{user: st-carol}}]
  vm2:
    title: web test server
    socket: {SOCKETS}/vm2.sock
    allow: [{{user: st-carol}}]
  build:
    title: 'builds "100 %d" of 日本 💻 \\ '
    socket: {SOCKETS}/build.sock
    allow: [{{user: st-carol}}]
  lab:
    socket: {SOCKETS}/lab.sock
    allow: [{{user: st-carol, starts: 2030-01-01}}]
"""
#: The start of the input line, above the VMs.
TYPED = "\n>"


@pytest.fixture
def pc(stage: Stage, broker: Broker, carol: Person, vm1: Vm, vm2: Vm) -> Client:
    assert stage.set_map(MAP)
    return stage.client(carol)


@pytest.fixture
def terminal(pc: Client, screen: Screen) -> Iterator[Tmux]:
    with Tmux(pc.at(screen)) as terminal:
        yield terminal


def start(terminal: Tmux, command: str = "spice-connect") -> list[str]:
    """Run `command`; returns the lines of the VMs when they are shown."""
    terminal.enter(command)
    shown = terminal.wait_for("Enter opens, Esc leaves")
    return shown.partition(TYPED)[2].split("\n")[1:-1]


def chosen(terminal: Tmux) -> str:
    """The name of the VM in the selected line."""
    return (chosen_line(terminal).split() or [""])[0]


def chosen_line(terminal: Tmux) -> str:
    """The selected line, which is in reverse video."""
    found = re.search(r"\x1b\[[\d;]*7m(?:\x1b\[[\d;]*m)*([^\x1b]+)", terminal.coloured())
    return found[1] if found else ""


def wait_chosen(terminal: Tmux, name: str) -> None:
    wait_until(
        lambda: chosen(terminal) == name,
        10,
        lambda: f"{name} to be selected, not {chosen(terminal)}",
    )


def is_left(terminal: Tmux, *above: str) -> bool:
    """Whether only the command, the lines `above` and the next prompt are shown."""
    return terminal.wait_for_prompt()[1:] == list(above)


def test_the_pick_shows_the_persons_vms_and_their_states(
    stage: Stage, alice: Person, terminal: Tmux
) -> None:
    with stage.client(alice).spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice")
        assert start(terminal) == [
            'build  builds "100 %d" of 日本 💻 \\   off',
            "lab                                   opens 2030-01-01 00:00",
            "vm1    Windows 10, book-keeping       busy: st-alice",
            "vm2    web test server                free",
        ]
        terminal.press("Escape")
        assert is_left(terminal)


def test_arrow_keys_move_and_enter_opens(terminal: Tmux, screen: Screen, vm1: Vm) -> None:
    start(terminal)
    wait_chosen(terminal, "build")
    terminal.press("Up")
    wait_chosen(terminal, "build")
    terminal.press("Down", "Down", "Down", "Down")
    wait_chosen(terminal, "vm2")
    terminal.press("PageUp")
    wait_chosen(terminal, "build")
    terminal.press("End", "C-p")
    wait_chosen(terminal, "vm1")
    terminal.press("Enter")
    screen.wait_for_colour(vm1.colour.rgb)
    terminal.wait_gone("opening the viewer")
    assert terminal.lines() == ["pc$ spice-connect"]
    terminal.press("C-c")
    assert is_left(terminal, "^C")


def test_typing_searches_names_and_titles(terminal: Tmux, screen: Screen, vm2: Vm) -> None:
    start(terminal)
    terminal.type("SERVER wEb")
    terminal.wait_for("1 of 4")
    wait_chosen(terminal, "vm2")
    terminal.type("x")
    terminal.wait_for("0 of 4")
    terminal.press("Enter")
    terminal.press("BSpace")
    terminal.wait_for("1 of 4")
    terminal.press("Enter")
    screen.wait_for_colour(vm2.colour.rgb)


def test_a_vm_that_is_closed_now_is_not_opened(terminal: Tmux) -> None:
    start(terminal)
    terminal.type("lab")
    terminal.wait_for("1 of 4")
    terminal.press("Enter")
    terminal.wait_for("'lab' opens 2030-01-01 00:00: Enter waits for it, Esc goes back")
    terminal.press("C-d")
    terminal.wait_for("1 of 4")
    terminal.press("C-d")
    assert is_left(terminal)


def test_options_apply_to_the_picked_vm(terminal: Tmux) -> None:
    start(terminal, "spice-connect --no-viewer")
    terminal.press("End", "Enter")
    terminal.wait_for("/spice")
    terminal.press("C-c")
    terminal.wait_for_prompt()


def test_the_pick_works_on_the_kvm_host_itself(terminal: Tmux, screen: Screen, vm2: Vm) -> None:
    start(terminal, "spice-connect --host local:")
    terminal.press("End", "Enter")
    screen.wait_for_colour(vm2.colour.rgb)
    assert terminal.lines() == ["pc$ spice-connect --host local:"]


def test_ctrl_c_exits_with_130(terminal: Tmux) -> None:
    start(terminal, "spice-connect; echo $?")
    terminal.press("C-c")
    assert is_left(terminal, "", "130")


@pytest.mark.parametrize(("signal", "code"), [("TERM", "143"), ("INT", "130"), ("HUP", "129")])
def test_a_signal_restores_the_terminal(pc: Client, terminal: Tmux, signal: str, code: str) -> None:
    start(terminal, "spice-connect; echo $?; stty -a | grep -o ' echo '")
    pid = run("pgrep", "-u", pc.person.name, "-f", "bin/spice-connect").split()[0]
    run("kill", f"-{signal}", pid)
    assert terminal.wait_for_prompt()[-2:] == [code, " echo"]


def test_on_a_narrow_terminal_titles_are_cut(pc: Client, screen: Screen) -> None:
    with Tmux(pc.at(screen), columns=40) as terminal:
        lines = start(terminal)
        assert lines[2:] == ["vm1    Windows…  free", "vm2    web tes…  free"]
        assert all(len(line) < 40 for line in lines)
        terminal.press("Escape")
        assert is_left(terminal)


def test_a_terminal_that_grows_shows_more(pc: Client, screen: Screen) -> None:
    with Tmux(pc.at(screen), columns=40) as terminal:
        start(terminal)
        terminal.resize(80, 24)
        terminal.wait_for("Windows 10, book-keeping")
        terminal.resize(60, 6)
        terminal.wait_for("4 of 4")
        terminal.press("Escape")
        terminal.wait_gone("of 4")


def test_the_plain_list_with_list_and_without_a_terminal(terminal: Tmux) -> None:
    for command in "spice-connect --list", "TERM=dumb spice-connect", "spice-connect | cat":
        terminal.clear()
        terminal.enter(command)
        terminal.wait_for("TITLE")
        terminal.wait_for_prompt()
        assert "Windows 10, book-keeping" in terminal.screen()


def configure(pc: Client, **hosts: str) -> None:
    """Add hosts to the configurations of spice-connect and ssh: name -> ssh option lines."""
    file = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    table = "".join(f'"{host}-*" = "{host}"\n' for host in hosts)
    file.write_text(f"{file.read_text()}[hosts]\n{table}")
    config = "".join(f"Host {host}\n    {option}\n" for host, option in hosts.items())
    pc.ssh_config.write_text(config + pc.ssh_config.read_text())


def test_a_host_that_does_not_answer_is_reported_in_one_line(pc: Client, screen: Screen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        configure(pc, dead=f"HostName 127.0.0.1\n    Port {port}\n    ConnectTimeout 4")
        with Tmux(pc.at(screen)) as terminal:
            lines = start(terminal)
            assert len(lines) == 4
            assert "asking dead" in terminal.screen()
            terminal.press("Down")
            wait_chosen(terminal, "lab")
            terminal.wait_for("dead cannot be reached", 15)
            wait_chosen(terminal, "lab")
            terminal.press("Escape")
            shown = terminal.wait_for_prompt()
            assert shown[1:] == ["spice-connect: dead cannot be reached"]


def test_vms_of_a_slow_host_are_added_later(pc: Client, screen: Screen, vm2: Vm) -> None:
    """They are added when the host answers. The selection stays on its VM."""
    config = pc.ssh_config.read_text()
    host = re.search(r"Port (\d+)", config)
    assert host
    proxy = f"sh -c 'sleep 4; exec nc 127.0.0.1 {host[1]}'"
    user = "User st-carol\n    IdentityFile " + re.findall(r"IdentityFile (\S+)", config)[0]
    known = "UserKnownHostsFile " + re.findall(r"UserKnownHostsFile (\S+)", config)[0]
    alias = f"HostKeyAlias [127.0.0.1]:{host[1]}"
    configure(pc, slow="\n    ".join([f"ProxyCommand {proxy}", user, known, alias]))
    with Tmux(pc.at(screen)) as terminal:
        assert len(start(terminal)) == 4
        terminal.press("Down")
        terminal.wait_for("of 8", 15)
        wait_until(lambda: chosen_line(terminal).split()[:2] == ["lab", "kvm"], 10, "lab of kvm")
        assert "asking" not in terminal.screen()
        terminal.type("slow vm2")
        terminal.wait_for("1 of 8")
        terminal.press("Enter")
        screen.wait_for_colour(vm2.colour.rgb)


def test_the_first_run_asks_for_the_host_and_then_for_the_vm(pc: Client, screen: Screen) -> None:
    file = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    # The run-dir must not be the real one: if a broker runs on this machine, no host is asked for.
    file.write_text(
        re.sub("host = .*\n|run-dir = .*\n", "", file.read_text()) + 'run-dir = "/nowhere"\n'
    )
    with Tmux(pc.at(screen)) as terminal:
        terminal.enter("spice-connect; echo $?")
        terminal.wait_for("host:")
        terminal.press("C-c")
        assert is_left(terminal, "host: ^C", "130")
        terminal.clear()
        terminal.enter("spice-connect; echo $?")
        terminal.wait_for("host:")
        terminal.press("C-d")
        terminal.wait_for("64")
        assert "spice-connect: no host to connect to" in terminal.screen()
        terminal.wait_for_prompt()
        terminal.clear()
        terminal.enter("spice-connect")
        terminal.wait_for("host:")
        terminal.enter("kvm")
        terminal.wait_for("keep it in")
        terminal.press("Enter")
        terminal.wait_for("Enter opens, Esc leaves")
        assert file.read_text().startswith('host = "kvm"\n')
