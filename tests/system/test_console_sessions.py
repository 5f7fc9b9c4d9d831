"""`where: console` end to end: a real logind, real logins, and sessions that depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stage.broker import CONTROL, TUNNEL, Broker
from tests.stage.logind import FILES, Logind
from tests.stage.machine import LOGS
from tests.stage.process import Process
from tests.stage.sockets import is_listening
from tests.stage.stage import MAP, MAP_FILE
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: Mounts the files of the stage's logind over the machine's, for this process only; then drops root
#: and becomes the broker.
BEHIND = """\
import os, subprocess, sys
files, uid, gid, *argv = sys.argv[1:]
os.makedirs("/run/systemd", exist_ok=True)  # missing if systemd never ran
subprocess.run(["mount", "--bind", files, "/run/systemd"], check=True)
os.setgroups([int(gid)])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(argv[0], argv)
"""

ALICES = "      - user: st-alice\n"
CONSOLE_MAP = MAP.replace(ALICES, "      - {group: st-users, where: console}\n", 1)


@pytest.fixture
def logind(stage: Stage) -> Iterator[Logind]:
    with Logind() as logind:
        yield logind


@pytest.fixture
def console_broker(stage: Stage, broker: Broker, logind: Logind, vm1: Vm) -> Iterator[None]:
    """The broker with the stage's logind. The usual broker is started again afterwards."""
    assert stage.set_map(CONSOLE_MAP)
    broker.stop()
    service = broker.service
    argv = ["unshare", "--mount", "--", "/usr/bin/python3", "-c", BEHIND, str(FILES)]
    argv += [str(service.uid), str(service.gid), *broker.argv]
    assert str(MAP_FILE) in argv
    with Process(argv, LOGS / "broker") as process:
        both = (CONTROL, TUNNEL)
        process.until(lambda: all(map(is_listening, both)), 20, "the broker to listen")
        yield
    broker.restart()


def refused(stage: Stage, person: Person, *options: str) -> str:
    with stage.client(person).at(stage.screen).spice_connect(*options, "vm1") as client:
        assert client.wait() == 77
        return client.err()


@pytest.mark.usefixtures("console_broker")
def test_a_console_grant_needs_a_login_at_the_console_and_ends_with_it(
    stage: Stage, logind: Logind, alice: Person, bob: Person, vm1: Vm, screen: Screen
) -> None:
    logind.login(alice, remote_host="192.0.2.7")
    assert "only at the console of this server" in refused(stage, alice)
    login = logind.login(alice)
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        assert "only at the console" in refused(stage, bob)
        login.logout()
        assert client.wait(2) == 77
        assert "you may no longer use 'vm1'" in client.err()
        assert "only at the console of this server" in client.err()
    vm1.wait_for_no_client()


@pytest.mark.usefixtures("console_broker")
def test_switching_the_seat_to_another_person_ends_the_session(
    stage: Stage, logind: Logind, alice: Person, bob: Person, vm1: Vm, screen: Screen
) -> None:
    logind.login(alice)
    with stage.client(alice).at(screen).spice_connect("vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        logind.login(bob)  # takes the seat
        assert client.wait(2) == 77
    vm1.wait_for_no_client()
    with stage.client(bob).at(screen).spice_connect("vm1"):
        screen.wait_for_colour(vm1.colour.rgb)
        wait_until(lambda: vm1.spice_clients() > 0, 5, "bob's viewer")


@pytest.mark.usefixtures("console_broker")
def test_the_local_client_of_a_remote_login_is_refused_and_of_a_console_login_is_not(
    stage: Stage, logind: Logind, alice: Person, bob: Person, vm1: Vm, screen: Screen
) -> None:
    """Without ssh, both use the same local client. Only logind knows who sits at the seat."""
    here = ("--host", "local:")
    logind.login(bob, remote_host="192.0.2.7")
    login = logind.login(alice)
    assert "only at the console of this server" in refused(stage, bob, *here)
    with stage.client(alice).at(screen).spice_connect(*here, "vm1") as client:
        screen.wait_for_colour(vm1.colour.rgb)
        login.logout()
        assert client.wait(2) == 77
        assert "only at the console of this server" in client.err()
    vm1.wait_for_no_client()
