"""View-only, to a real QEMU: nothing of a hostile viewer reaches the guest, its console or QEMU."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spicetunnel.spice.link import NEED_SECURED
from tests.refusals.attacker import local_socket, wait_for_socket
from tests.stage.agentvm import CLIENT, Agent, AgentVm
from tests.stage.bootsector import Colour
from tests.stage.broker import TUNNEL
from tests.stage.rawviewer import LinkRefusedError, RawChannel
from tests.stage.spice import (
    AGENT_START,
    CAPABILITIES,
    CHANNELS_LIST,
    CLIPBOARD,
    DISPLAY_CONFIG,
    FILE_DATA,
    FILE_START,
    FILE_STATUS,
    GRAB,
    INIT,
    INPUTS,
    MAIN,
    MAX_CLIPBOARD,
    MONITORS,
    MOUSE,
    PORT,
    RELEASE,
    REQUEST,
    VOLUME,
    Message,
    announced,
    announcement,
    message,
    pieces,
    u32,
)
from tests.stage.stage import MAP
from tests.stage.vm import SOCKETS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage

ATTACH = message(104)
PORT_DATA = 101

#: Each as a real viewer sends it, and what may not be in one.
HOSTILE = {
    MOUSE: u32(300, 200, 2) + b"\0",
    MONITORS: u32(1, 0, 480, 640, 32, 0, 0),
    CLIPBOARD: u32(0, 1) + b"rm -rf /\n" * 1000,  # five pieces
    DISPLAY_CONFIG: u32(1, 0),
    GRAB: u32(0, 1),
    RELEASE: u32(0),
    FILE_START: u32(7) + b"[vdagent-file-xfer]\nname=evil\nsize=3\n\0",
    FILE_DATA: u32(7, 3, 0) + b"evi",
    VOLUME: b"\1\0\1\xff\xff",
}


@pytest.fixture(scope="module")
def vm(stage: Stage) -> Iterator[AgentVm]:
    with AgentVm("vm-agent", Colour.CYAN, stage.service("qemu")) as running:
        yield running


@pytest.fixture
def agent(vm: AgentVm) -> Iterator[Agent]:
    with Agent(vm) as playing:
        yield playing


@pytest.fixture(autouse=True)
def _running(broker: object) -> None:
    """The broker runs, and gets its usual map back afterwards."""


def give(stage: Stage, conditions: str = "") -> None:
    """alice may use vm-agent, on these conditions."""
    vm = f"  vm-agent:\n    socket: {SOCKETS}/vm-agent.sock\n    allow:\n"
    assert stage.set_map(f"{MAP}{vm}      - {{user: st-alice{conditions}}}\n")


@contextlib.contextmanager
def session(stage: Stage, person: Person) -> Iterator[Path]:
    """A plain ssh, as anybody may type it; yields the local socket."""
    near = local_socket("view-near")
    with stage.gate_ssh(person, "open vm-agent", forwards=(f"{near}:{TUNNEL}",)) as ssh:
        ssh.says("vm-agent is ready")
        wait_for_socket(near, ssh)
        yield near


def started(main: RawChannel) -> int:
    """Talk to the agent; returns the number that side channels need."""
    number = int.from_bytes(main.wait_for(INIT).body[:4], "little")
    main.send(message(AGENT_START, u32(2**32 - 1)), ATTACH)
    main.wait_for(CHANNELS_LIST)
    return number


def attack(main: RawChannel, size: int) -> None:
    """All of it, in fragments of `size` bytes, within the tokens."""
    for kind, body in HOSTILE.items():
        parts = pieces(kind, body)
        before, data = main.tokens(), b"".join(parts)
        main.send(*(data[at : at + size] for at in range(0, len(data), size)))
        wait_until(
            lambda: main.tokens() - before >= len(parts) - 4,  # noqa: B023
            10,
            lambda: f"the tokens of {kind}",  # noqa: B023
        )


@pytest.mark.parametrize("size", [100_000, 1, 7, 26])
def test_agent_gets_nothing_of_a_hostile_viewer(
    stage: Stage, alice: Person, vm: AgentVm, agent: Agent, size: int
) -> None:
    give(stage, ", view-only: true")
    with session(stage, alice) as near, RawChannel(near, MAIN) as main:
        started(main)
        main.send(*pieces(CAPABILITIES, announcement(*range(18))))
        agent.wait_for(CAPABILITIES)
        for _ in range(3):  # 50 pieces, where a viewer has ten tokens
            attack(main, size)
        # What is allowed goes on, both ways, and comes after all that was dropped.
        main.send(*pieces(REQUEST, u32(0, 1)))
        agent.wait_for(REQUEST)
        agent.say(CAPABILITIES, announcement(*range(18)))
        copied = u32(0, 1) + b"seen on the screen" * 5000
        agent.say(CLIPBOARD, copied)
        wait_until(
            lambda: Message(CLIPBOARD, copied) in main.agent_said(), 20, "the guest's clipboard"
        )
        assert not main.ended.is_set()
        said = main.agent_said()
    assert agent.kinds() == [CAPABILITIES, REQUEST]
    (announcement_got,) = [each.body for each in agent.heard if each[:2] == (CLIENT, CAPABILITIES)]
    assert announced(announcement_got) == {2, 3, 5, 6, 8, 9, 10, 16}
    assert [announced(body) for kind, body in said if kind == CAPABILITIES] == [
        {2, 3, 5, 6, 8, 9, 10, 13, 16}
    ]
    assert said.count(Message(FILE_STATUS, u32(7, 1))) == 3  # each file is refused at once


def test_without_view_only_the_agent_gets_it_all(
    stage: Stage, alice: Person, vm: AgentVm, agent: Agent
) -> None:
    """So the attack is a real one."""
    give(stage)
    with session(stage, alice) as near, RawChannel(near, MAIN) as main:
        started(main)
        # QEMU takes the monitors for itself, where its display can follow them.
        attack(main, 100_000)
        agent.wait_for(VOLUME)
        assert set(HOSTILE) - {MONITORS} <= set(agent.kinds())
        (got,) = [each.body for each in agent.heard if each[:2] == (CLIENT, CLIPBOARD)]
        assert got == HOSTILE[CLIPBOARD]


def test_unknown_byte_ends_the_channel(stage: Stage, alice: Person, vm: AgentVm) -> None:
    give(stage, ", view-only: true")
    mark = stage.broker.mark()
    with session(stage, alice) as near:
        with RawChannel(near, MAIN) as main:
            started(main)
            main.send(message(5, b"migration data"))
            assert main.ended.wait(5)
        end = stage.broker.wait_audit(lambda line: line["event"] == "channel-end", since=mark)
        assert end["reason"] == (
            "closed by the filter: a message of type 5 and 14 bytes from the viewer"
        )
        vm.wait_for_no_client()


@pytest.mark.parametrize("conditions", [", view-only: true", ", no-devices: true"])
def test_port_channel_is_refused(stage: Stage, alice: Person, vm: AgentVm, conditions: str) -> None:
    """Behind port 0 is a serial console, behind port 1 QEMU's monitor."""
    give(stage, conditions)
    with session(stage, alice) as near, RawChannel(near, MAIN) as main:
        number = started(main)
        for port in (0, 1):
            with pytest.raises(LinkRefusedError) as refused:
                RawChannel(near, PORT, number, port)
            assert refused.value.args == (NEED_SECURED,)
        if "view-only" in conditions:
            with pytest.raises(LinkRefusedError):
                RawChannel(near, INPUTS, number)
        else:
            with RawChannel(near, INPUTS, number):
                pass


def test_without_a_limit_the_port_channel_is_qemus_monitor(
    stage: Stage, alice: Person, vm: AgentVm
) -> None:
    """So it has to be refused."""
    give(stage)
    with session(stage, alice) as near, RawChannel(near, MAIN) as main:
        number = started(main)
        with RawChannel(near, PORT, number, 1) as monitor:
            monitor.send(message(PORT_DATA, b"info name\n"))
            wait_until(
                lambda: b"vm-agent" in b"".join(x.body for x in monitor.got if x.kind == PORT_DATA),
                10,
                lambda: f"the monitor's answer, not {monitor.got}",
            )


def test_real_viewer_shows_the_screen_and_the_agent_hears_only_what_is_allowed(
    stage: Stage, alice: Person, vm: AgentVm, agent: Agent, screen: Screen
) -> None:
    give(stage, ", view-only: true")
    agent.say(CAPABILITIES, announcement(*range(18)))
    with stage.client(alice).at(screen).spice_connect("-v", "vm-agent") as client:
        screen.wait_for_colour(vm.colour.rgb)
        agent.say(CAPABILITIES, announcement(*range(18)))  # asks for the viewer's
        agent.wait_for(CAPABILITIES)
        window = screen.wait_for_window("vm-agent")
        screen.resize_window(window, 500, 400)  # a viewer sends the new size of its monitor
        screen.type("nobody hears this", window)
        time.sleep(2)  # there is no event to wait for: nothing must happen
        if saved := os.environ.get("VIEW_ONLY_PICTURE"):
            screen.screenshot(Path(saved))
        assert screen.colour_share(vm.colour.rgb) > 0.1
        assert client.alive()
        warnings = [x for x in client.err().splitlines() if "viewer says" in x and "WARNING" in x]
        assert warnings == []
    assert set(agent.kinds()) == {CAPABILITIES, MAX_CLIPBOARD}


def test_narrowed_right_brings_another_viewer_that_is_filtered(
    stage: Stage, alice: Person, vm: AgentVm, agent: Agent, screen: Screen
) -> None:
    give(stage)
    with stage.client(alice).at(screen).spice_connect("vm-agent") as client:
        screen.wait_for_colour(vm.colour.rgb)
        mark = stage.broker.mark()
        give(stage, ", view-only: true")
        client.says("your rights at 'vm-agent' have changed", 10)
        line = stage.broker.wait_audit(
            lambda line: line["event"] == "channel" and line.get("type") == "display", since=mark
        )
        assert line["decision"] == "allow"
        screen.wait_for_colour(vm.colour.rgb)
        assert client.alive()
