"""A VM's socket: whether it runs, and that no QEMU passes another's off as its own."""

import asyncio
import os
from pathlib import Path

import pytest

from spicetunnel.broker import vm
from spicetunnel.broker.vm import States, UnreachableError, require_running, state
from spicetunnel.common.errors import NotRunningError
from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, Vm, other_connection, wait_until


@pytest.fixture
def place(server: Server) -> Vm:
    return server.vm("vm1")


def test_socket_that_listens_runs(place: Vm) -> None:
    assert state(str(place.path)) == "running"
    found = os.stat(place.path)
    assert require_running("vm1", str(place.path)).born == f"{found.st_ino}:{found.st_mtime_ns}"


def test_socket_that_is_missing_or_not_listened_at_is_off(place: Vm) -> None:
    missing = place.path.with_name("missing")
    assert state(str(missing)) == state(f"{missing}/deeper") == "off"
    place.listener.close()
    assert state(str(place.path)) == "off"
    with pytest.raises(NotRunningError):
        require_running("vm1", str(place.path))


def test_full_backlog_is_running(place: Vm) -> None:
    for _ in range(200):
        assert state(str(place.path)) == "running"
    assert require_running("vm1", str(place.path)).born


@pytest.mark.parametrize("kind", ["the socket", "its directory", "a directory above"])
def test_symbolic_link_is_not_followed(place: Vm, tmp_path: Path, kind: str) -> None:
    target = place.path
    if kind == "the socket":
        link = tmp_path / "vm2"
        link.symlink_to(target)
    elif kind == "its directory":
        (tmp_path / "linked").symlink_to(target.parent)
        link = tmp_path / "linked" / target.name
    else:
        (tmp_path / "linked").symlink_to(target.parent.parent)
        link = tmp_path / "linked" / target.parent.name / target.name
    assert link.is_socket()
    assert state(str(link)) == "unreachable"
    with pytest.raises(UnreachableError, match="symbolic link"):
        require_running("vm2", str(link))


def test_looking_leaves_no_descriptor(place: Vm, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    for path in (place.path, tmp_path / "none", tmp_path / "file", tmp_path / "file" / "x"):
        for _ in range(3):
            state(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_states_are_looked_up_once_for_all_who_ask_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def look(path: str) -> str:
        asked.append(path)
        return "off"

    monkeypatch.setattr(vm, "state", look)

    async def ask() -> None:
        states = States()
        paths = [f"/vm{number}" for number in range(1000)]
        found = await asyncio.gather(*(states.of(paths) for _ in range(16)))
        assert all(each == dict.fromkeys(paths, "off") for each in found)
        assert len(asked) == 1000
        monkeypatch.setattr(vm, "_FRESH", 0.0)
        await states.of(paths[:1])
        assert len(asked) == 1001

    asyncio.run(ask())


def test_vm_whose_socket_is_linked_to_anothers_is_refused(server: Server) -> None:
    """By a hard link: a symbolic one is never followed."""
    real = server.vm("vm1")
    server.open("vm1")
    os.link(real.path, server.directory / "vm2")
    with other_connection(server) as other:
        said = other.gate("open --json vm2")
    assert said["event"] == "refused"
    assert said["reason"] == "the console of 'vm2' cannot be told from another one"
    (fault,) = server.audit("fault")
    assert (fault["vm"], fault["reason"]) == ("vm1", "the socket of 'vm2' is that of this VM too")


def test_channel_to_a_socket_that_was_swapped_for_anothers_is_refused(server: Server) -> None:
    first, second = server.vm("vm1"), server.vm("vm2")
    server.open("vm1")
    server.channel(first)
    with other_connection(server) as other:
        other.gate("open --json vm2")
        viewer = other.connect()
        server.through(viewer, second)
        second.path.unlink()
        os.link(first.path, second.path)
        with other.connect() as late:
            late.sendall(link(DISPLAY, 7))
            denied = wait_until(lambda: server.denied("channel"), "it")
    assert "cannot be told from another" in str(denied[0]["reason"])
