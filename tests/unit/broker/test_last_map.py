"""A broker that starts while the map is broken uses the last good map."""

import os
from pathlib import Path

import pytest

from spicetunnel.broker.maps import LastMap
from tests.unit.broker.server import Server

BROKEN = "vms: {vm1: {sock: /x}}\n"


def test_restart_with_a_broken_map_uses_the_last_good_one(server: Server) -> None:
    server.vm("vm1")
    server.kill_broker()
    server.map.write_text(BROKEN)
    server.start()
    refused = server.audit("map")[-1]
    assert refused["decision"] == "deny"
    assert "the last good one stays in force" in str(refused["reason"])
    assert server.open("vm1")
    assert server.audit("open")[0]["grant"] == f"{server.map}:7"


def test_last_good_map_includes_its_parts(server: Server) -> None:
    parts = server.directory / "vms.d"
    parts.mkdir()
    socket = server.directory / "vm7"
    vm7 = f"{{socket: {socket}, allow: [{{user: {server.user}}}]}}"
    (parts / "more.yaml").write_text(f"vms: {{vm7: {vm7}}}\n")
    server.kill_broker()
    server.start()
    server.kill_broker()
    (parts / "more.yaml").write_text(BROKEN)
    server.start()
    server.vm("vm7")
    assert server.open("vm7")


def test_repaired_map_is_used_again(server: Server) -> None:
    good = server.map.read_text()
    server.kill_broker()
    server.map.write_text(BROKEN)
    server.start()
    server.use_map(good)


def test_missing_map_is_not_replaced_by_the_last_good_one(server: Server) -> None:
    """An admin may remove the map on purpose, so no older map lets anybody in."""
    server.kill_broker()
    server.map.unlink()
    assert server.try_to_start() == os.EX_NOINPUT


def test_broken_map_without_a_last_good_one_fails(server: Server) -> None:
    server.kill_broker()
    (server.state / "last-good-map.json").unlink()
    server.map.write_text(BROKEN)
    assert server.try_to_start() == os.EX_CONFIG


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
