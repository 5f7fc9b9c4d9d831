"""A broker that starts while the map is broken uses the last good map."""

import os
from pathlib import Path

import pytest

from spicetunnel.broker.maps import LastMap
from tests.unit.broker.house import House

BROKEN = "vms: {vm1: {sock: /x}}\n"


def test_restart_with_a_broken_map_uses_the_last_good_one(house: House) -> None:
    house.vm("vm1")
    house.kill_broker()
    house.map.write_text(BROKEN)
    house.start()
    refused = house.audit("map")[-1]
    assert refused["decision"] == "deny"
    assert "the last good one stays in force" in str(refused["reason"])
    assert house.open("vm1")
    assert house.audit("open")[0]["grant"] == f"{house.map}:7"


def test_parts_are_kept_too(house: House) -> None:
    parts = house.directory / "vms.d"
    parts.mkdir()
    socket = house.directory / "vm7"
    vm7 = f"{{socket: {socket}, allow: [{{user: {house.user}}}]}}"
    (parts / "more.yaml").write_text(f"vms: {{vm7: {vm7}}}\n")
    house.kill_broker()
    house.start()
    house.kill_broker()
    (parts / "more.yaml").write_text(BROKEN)
    house.start()
    house.vm("vm7")
    assert house.open("vm7")


def test_repaired_map_is_used_again(house: House) -> None:
    good = house.map.read_text()
    house.kill_broker()
    house.map.write_text(BROKEN)
    house.start()
    house.use_map(good)


def test_missing_map_is_not_replaced_by_the_last_good_one(house: House) -> None:
    """An admin may remove the map on purpose, so no older map lets anybody in."""
    house.kill_broker()
    house.map.unlink()
    assert house.try_to_start() == os.EX_NOINPUT


def test_broken_map_without_a_last_good_one_fails(house: House) -> None:
    house.kill_broker()
    (house.state / "last-good-map.json").unlink()
    house.map.write_text(BROKEN)
    assert house.try_to_start() == os.EX_CONFIG


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"v": 2, "files": []}', '{"v": 1, "files": 7}', '{"v": 1}', '"x"']
)
def test_invalid_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "last-good-map.json").write_text(text)
    assert LastMap(tmp_path).read() == []


def test_file_that_others_may_write_is_ignored(tmp_path: Path) -> None:
    last = LastMap(tmp_path)
    last.write([(b"vms: {}\n", "/etc/m")])
    assert last.read() == [(b"vms: {}\n", "/etc/m")]
    path = tmp_path / "last-good-map.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    assert last.read() == []
