"""The server ends a session: at once, whatever the user does, and with the reason."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.rawvm import gate_pid
from tests.stage.stage import MAP, NO_VMS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture(autouse=True)
def _running(broker: Broker) -> None:
    """The broker runs, and gets its usual map back afterwards."""


def test_saving_a_map_without_the_grant_cuts_the_session_within_a_second(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """The broker gets no signal: it watches the file."""
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        stage.write_map(NO_VMS)
        vm1.wait_for_no_client(1)
        assert client.wait(2) == 77
        assert "you may no longer use 'vm1': no grant names you" in client.err()


def test_a_stopped_gate_cannot_keep_its_session(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    with stage.client(alice).at(screen).spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        pid = gate_pid(alice)
        os.kill(pid, signal.SIGSTOP)
        stage.write_map(NO_VMS)
        vm1.wait_for_no_client(1)
        os.kill(pid, signal.SIGCONT)


def test_removing_the_account_ends_its_session(stage: Stage, vm1: Vm) -> None:
    leaver = stage.person("leaver")
    assert stage.set_map(MAP.replace("st-alice", leaver.name, 1))
    with stage.gate_ssh(leaver, "open vm1") as ssh:
        ssh.says("vm1 is ready")
        uid = leaver.uid
        run("userdel", "--force", leaver.name)
        assert ssh.wait(20) == 77
        assert f"uid {uid} has no account on this server" in ssh.err()


def test_warning_before_the_end_of_a_time_window(
    stage: Stage, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """With the real clock: the window ends within two minutes, the warning is due in seconds."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=2)
    when = f"{end - timedelta(hours=1):%H:%M}-{end:%H:%M}"
    left = int((end - datetime.now(UTC)).total_seconds())
    granted = MAP.replace(
        "      - user: st-alice\n", f'      - {{user: st-alice, when: "{when}"}}\n', 1
    )
    assert stage.set_map(f"timezone: UTC\nwarn: [{left - 12}s]\n{granted}")
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: "your time at 'vm1' ends in" in client.err(), 20, "the warning")
        assert f"at {end:%H:%M}" in client.err()
        assert "hint: " in client.err()
        assert client.alive()
