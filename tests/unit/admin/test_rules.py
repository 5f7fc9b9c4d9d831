"""Members of the admin group may not read the map: `explain` and `calendar` ask the running broker.

The tests act as `nobody`, whose group is the admin group here; so they need root.
"""

import contextlib
import grp
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.admin import calendar, explain  # nobody may not read a checkout in root's home
from spicetunnel.admin.broker import ask
from spicetunnel.admin.cli import run
from tests.unit.broker.server import Server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else too")

IMPORTED = (calendar, explain)
NOBODY = 65534
Output = pytest.CaptureFixture[str]


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.contextmanager
def closed_server(run_dir: Path, admins: str) -> Iterator[Server]:
    """A broker whose map and temporary grants only root can read."""
    server = Server(run_dir)
    try:
        server.map.chmod(0o600)
        server.start("--admin-group", admins)
        run_dir.chmod(0o755)
        yield server
    finally:
        server.close()


@pytest.fixture
def closed(run_dir: Path) -> Iterator[Server]:
    with closed_server(run_dir, grp.getgrgid(NOBODY).gr_name) as server:
        yield server


def places(server: Server) -> list[str]:
    return ["--map", str(server.map), "--run-dir", str(server.directory)]


def explained(server: Server, *words: str) -> int:
    with as_nobody():
        return run(["explain", *words, *places(server), "--state-dir", str(server.state)])


def test_admin_gets_the_map_from_the_broker(closed: Server, capsys: Output) -> None:
    with pytest.raises(PermissionError), as_nobody():
        closed.map.read_text()
    assert explained(closed, "root", "vm1", "--json") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out)["grant"] == {"file": str(closed.map), "line": 7}
    with as_nobody():
        assert run(["calendar", *places(closed)]) == 0
    assert "vm2  the vm2\n  root" in capsys.readouterr().out


def test_admin_gets_the_temporary_grants_from_the_broker(closed: Server, capsys: Output) -> None:
    assert explained(closed, "nobody", "vm1") == 77
    about = {"user": "nobody", "vm": "vm1", "seconds": 60, "reason": "the printer"}
    given = ask(str(closed.directory), "grant", **about)["grant"]
    assert isinstance(given, dict)
    capsys.readouterr()
    assert explained(closed, "nobody", "vm1") == 0
    assert f"temporary grant {given['id']}" in capsys.readouterr().out


def test_map_that_the_broker_has_refused_is_not_the_one_in_force(
    closed: Server, capsys: Output
) -> None:
    """The answer is what holds now."""
    closed.map.write_text("vms: {}\nvms: {}\n")
    assert explained(closed, "root", "vm1") == 0
    assert capsys.readouterr().err == ""


def test_part_that_the_admin_may_not_read(closed: Server, capsys: Output) -> None:
    parts = closed.directory / "vms.d"
    parts.mkdir(0o755)
    closed.map.chmod(0o644)
    (parts / "lab.yaml").write_text("vms: {lab: {socket: /run/lab, allow: [user: root]}}\n")
    (parts / "lab.yaml").chmod(0o600)
    closed.use_map(closed.map.read_text())
    closed.map.chmod(0o644)
    assert explained(closed, "root", "lab", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["grant"] == {"file": str(parts / "lab.yaml"), "line": 1}


@pytest.mark.parametrize("command", [["explain", "root", "vm1"], ["calendar"]])
def test_who_is_no_admin_is_told_who_is(run_dir: Path, capsys: Output, command: list[str]) -> None:
    with closed_server(run_dir, "root") as server:
        with as_nobody():
            assert run([*command, *places(server)]) == 66
    reason, hint = capsys.readouterr().err.splitlines()
    assert reason == f"spicetunnel: {server.map}: cannot be read: permission denied"
    assert hint == "hint: run this as root, or as a member of the admin group while the broker runs"


def test_another_map_is_not_taken_for_the_brokers(closed: Server, capsys: Output) -> None:
    other = closed.directory / "other.yaml"
    other.write_text("vms: {}\n")
    other.chmod(0o600)
    with as_nobody():
        words = ["--map", str(other), "--run-dir", str(closed.directory)]
        assert run(["calendar", *words]) == 66
    assert "permission denied" in capsys.readouterr().err


def test_without_a_broker_there_is_no_answer(closed: Server, capsys: Output) -> None:
    closed.kill_broker()
    assert explained(closed, "root", "vm1") == 66
    assert "hint: run this as root, or as a member of the admin group" in capsys.readouterr().err
