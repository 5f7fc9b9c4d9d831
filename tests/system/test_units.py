"""The systemd units, judged by systemd-analyze. What a running systemd makes of them is in
test_real_systemd.py."""

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
PROGRAMS = ("spicetunneld", "spicetunnel-relay")
NAMES = [f"{program}.{kind}" for program in PROGRAMS for kind in ("service", "socket")]
SERVICES = [f"{program}.service" for program in PROGRAMS]
#: The highest exposure allowed, in tenths; systemd-analyze calls less than 2.0 "OK".
MOST_EXPOSED = {"spicetunneld.service": 13, "spicetunnel-relay.service": 6}


@pytest.fixture
def units(stage: Stage, tmp_path: Path) -> Path:
    """The directory of the units, with the stage's paths of the programs."""
    for name in NAMES:
        text = (
            (UNITS / name)
            .read_text()
            .replace("/usr/bin/spicetunnel", f"{stage.programs}/spicetunnel")
        )
        (tmp_path / name).write_text(text)
    return tmp_path


def test_systemd_understands_every_line(units: Path) -> None:
    run("systemd-analyze", "verify", "--man=no", *(str(units / name) for name in NAMES))


@pytest.mark.parametrize("service", SERVICES)
def test_systemd_reports_a_bad_line(units: Path, service: str) -> None:
    with (units / service).open("a") as file:
        file.write("[Service]\nExecStart=/nowhere/spicetunneld\n")
    with pytest.raises(StageError):
        run("systemd-analyze", "verify", "--man=no", str(units / service))


@pytest.mark.parametrize(("service", "most_exposed"), MOST_EXPOSED.items())
def test_service_is_hardened(units: Path, service: str, most_exposed: int) -> None:
    options = ("--offline=true", f"--threshold={most_exposed}", "--no-pager")
    run("systemd-analyze", "security", *options, str(units / service))


def test_sysusers_makes_the_users_and_groups_of_the_units_and_the_drop_in() -> None:
    conf = UNITS / "sysusers.d" / "spicetunnel.conf"
    made = set(re.findall(r"^[ug] (\S+)", conf.read_text(), re.MULTILINE))
    users, groups = {"spicetunnel", "spicetunnel-relay"}, {"spicetunnel-users", "spicetunnel-admin"}
    assert made == users | groups
    run("systemd-sysusers", "--dry-run", str(conf))


def test_tmpfiles_makes_the_directories() -> None:
    conf = UNITS / "tmpfiles.d" / "spicetunnel.conf"
    directories = re.findall(r"^d (\S+)", conf.read_text(), re.MULTILINE)
    assert "/var/lib/spicetunnel/vms" in directories
    assert "/run/spicetunnel-relay" in directories
    assert "/var/lib/spicetunnel/broker" not in directories, "StateDirectory= of the unit makes it"
