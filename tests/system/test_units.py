"""The systemd units, judged by systemd itself. (No systemd runs here: what the service manager does
with sockets and descriptors is played in tests/unit/broker/test_resume.py.)"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.stage import CHECKOUT
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stage.stage import Stage

UNITS = CHECKOUT / "systemd"
SERVICE, SOCKET = "spicetunneld.service", "spicetunneld.socket"
#: In tenths, as systemd-analyze counts: under 2.0 is "OK".
MOST_EXPOSED = 20


@pytest.fixture
def units(stage: Stage, tmp_path: Path) -> Path:
    """As they would be installed, with the program where it is on the stage."""
    program = str(stage.programs / "spicetunneld")
    for name in (SERVICE, SOCKET):
        text = (UNITS / name).read_text().replace("/usr/bin/spicetunneld", program)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_systemd_understands_every_line(units: Path) -> None:
    run("systemd-analyze", "verify", "--man=no", str(units / SERVICE), str(units / SOCKET))


def test_a_line_that_it_does_not_understand_would_be_seen(units: Path) -> None:
    with (units / SERVICE).open("a") as file:
        file.write("[Service]\nExecStart=/nowhere/spicetunneld\n")
    with pytest.raises(StageError):
        run("systemd-analyze", "verify", "--man=no", str(units / SERVICE))


def test_service_is_hardened(units: Path) -> None:
    options = ("--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager")
    run("systemd-analyze", "security", *options, str(units / SERVICE))


def test_sysusers_makes_what_the_service_and_the_drop_in_name() -> None:
    conf = UNITS / "sysusers.d" / "spicetunnel.conf"
    made = set(re.findall(r"^[ug] (\S+)", conf.read_text(), re.MULTILINE))
    assert made == {"spicetunnel", "spicetunnel-users", "spicetunnel-admin"}
    run("systemd-sysusers", "--dry-run", str(conf))


def test_tmpfiles_is_understood() -> None:
    conf = UNITS / "tmpfiles.d" / "spicetunnel.conf"
    directories = re.findall(r"^d (\S+)", conf.read_text(), re.MULTILINE)
    assert "/var/lib/spicetunnel/vms" in directories
    assert "/var/lib/spicetunnel/broker" not in directories, "that is the unit's StateDirectory"
