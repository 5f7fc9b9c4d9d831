"""A VM with a SPICE password: its users see the screen without being asked for the password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.bootsector import Colour
from tests.stage.machine import LOGS, RUN
from tests.stage.stage import MAP
from tests.stage.vm import SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

PASSWORD = "tr0ub4dor and three"
FILE = RUN / "vault.password"
VAULT = f"""\
  vault:
    socket: {SOCKETS}/vault.sock
    password-file: {FILE}
    allow:
      - user: st-alice
"""


@pytest.fixture
def vault(stage: Stage, broker: Broker) -> Iterator[Vm]:
    FILE.write_text(f"{PASSWORD}\n")
    broker.service.owns(FILE, 0o400)
    assert stage.set_map(MAP + VAULT)
    secret = ("-object", f"secret,id=ticket,data={PASSWORD}")
    with stage.extra_vm("vault", Colour.RED, secret, ticket="password-secret=ticket") as vm:
        yield vm
    FILE.unlink()


@pytest.mark.parametrize("place", [(), ("--host", "local:")], ids=["ssh", "local"])
def test_the_screen_appears_without_a_password_prompt(
    stage: Stage, alice: Person, vault: Vm, screen: Screen, place: tuple[str, ...]
) -> None:
    client = stage.client(alice).at(screen)
    with client.spice_connect("-v", *place, "vault") as shown:
        screen.wait_for_colour(vault.colour.rgb)
        assert PASSWORD not in shown.out() + shown.err()
        assert not list(client.runtime_dir.rglob("session.vv"))  # the viewer has deleted it
        assert not [name for name in running() if PASSWORD in name and "qemu" not in name]
    vault.wait_for_no_client()
    assert PASSWORD not in (LOGS / "broker.err").read_text()


def running() -> Iterator[str]:
    """The command lines of all processes."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            pass


def test_a_wrong_password_shows_no_screen(
    stage: Stage, alice: Person, vault: Vm, screen: Screen
) -> None:
    """QEMU does check the password; otherwise the test above would prove nothing."""
    FILE.chmod(0o600)
    FILE.write_text("another one\n")
    with stage.client(alice).at(screen).spice_connect("vault") as client:
        client.until(lambda: screen.wait_for_window("uthentication"), 20, "the viewer to ask")
        assert screen.colour_share(vault.colour.rgb) < 0.01


def test_a_password_file_that_others_can_read_is_refused(
    stage: Stage, alice: Person, vault: Vm
) -> None:
    FILE.chmod(0o444)
    with stage.client(alice).at(stage.screen).spice_connect("vault") as client:
        assert client.wait() == 70
        assert "the server cannot read the password of 'vault'" in client.err()
    stage.broker.wait_audit(lambda line: line["event"] == "fault" and line.get("vm") == "vault")


def test_a_person_without_a_grant_does_not_get_the_password(
    stage: Stage, mallory: Person, vault: Vm
) -> None:
    with stage.client(mallory).ssh("kvm", "open", "--json", "vault") as ssh:
        assert ssh.wait() == 77
        assert PASSWORD not in ssh.out() + ssh.err()
    assert not vault.spice_clients()
