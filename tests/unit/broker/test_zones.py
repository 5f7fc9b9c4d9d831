"""The time zone of the server, or the rules of one, change while the broker runs."""

import asyncio
import io
import os
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from spicetunnel.broker import maps
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.maps import LastMap, MapStore
from spicetunnel.policy import models

BERLIN, TOKYO = (Path("/usr/share/zoneinfo") / zone for zone in ("Europe/Berlin", "Asia/Tokyo"))
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with `localtime`, and with the rules of the zone Test/Zone."""
    (tmp_path / "localtime").symlink_to(BERLIN)
    (tmp_path / "Test").mkdir()
    (tmp_path / "Test/Zone").write_bytes(BERLIN.read_bytes())
    (tmp_path / "tzdata.zi").write_text("# version 1\n")
    monkeypatch.setattr(models, "LOCALTIME", str(tmp_path / "localtime"))
    files = [str(tmp_path / "localtime"), str(tmp_path / "tzdata.zi")]
    monkeypatch.setattr(maps, "ZONE_FILES", files)
    zoneinfo.reset_tzpath(to=[tmp_path])
    zoneinfo.ZoneInfo.clear_cache()
    yield tmp_path
    monkeypatch.undo()
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


def store(directory: Path, text: str) -> MapStore:
    file = directory / "vms.yaml"
    file.write_text(text + "vms: {vm1: {socket: /x}}\n")
    (directory / "state").mkdir(mode=0o700)
    return MapStore(file, Audit(io.StringIO()), LastMap(directory / "state"))


def hour(made: MapStore) -> int:
    vm_map = made.current
    return NOON.astimezone(vm_map.zone_of(vm_map.vms["vm1"])).hour


def changed(made: MapStore) -> bool:
    """Whether it notices a change; if so, it has read the map again."""

    async def run() -> bool:
        return await made.changed() and await made.reload()

    return asyncio.run(run())


def test_zone_of_the_server_changes(zones: Path) -> None:
    made = store(zones, "")
    assert hour(made) == 13
    assert not changed(made)
    new = zones / "new"
    new.symlink_to(TOKYO)
    os.rename(new, zones / "localtime")
    assert changed(made)
    assert hour(made) == 21
    assert not changed(made)


def test_update_brings_other_rules_for_the_zone_of_the_map(zones: Path) -> None:
    made = store(zones, "timezone: Test/Zone\n")
    assert hour(made) == 13
    (zones / "Test/Zone").write_bytes(TOKYO.read_bytes())
    assert not changed(made)
    (zones / "tzdata.zi").write_text("# version 2\n")
    assert changed(made)
    assert hour(made) == 21
