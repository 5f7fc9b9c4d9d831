"""Where the client makes its private directory, with the real ssh and the real viewer."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.spice import link
from tests.stage.vm import SOCKETS
from tests.system.test_nothing_left import private_files_in_tmp
from tests.system.test_shared_pc import LINK, MAKE, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: Most bytes of a Unix socket's path, without the final NUL.
LIMIT = 107
#: The length of the part after XDG_RUNTIME_DIR.
OURS = len("/spice-0123456789ab/spice")

#: With the stage's prefix, the longest user name that Linux allows.
LONG_NAME = "a-user-s-name-of-32-character"

#: The client with a predictable name for its directory.
FORESEEN = """\
import os
os.urandom = bytes
from spice_connect.__main__ import main
main()
"""
FORESEEN_NAME = Path("/tmp/spice-000000000000")


@pytest.fixture
def long(stage: Stage, broker: Broker) -> Client:
    """The PC of a person with that name, who may use vm1."""
    person = stage.person(LONG_NAME)
    assert len(person.name) == 32
    assert stage.set_map(f"""\
limits: {{opens-per-minute: 250, sessions-per-user: 250}}
vms:
  vm1:
    socket: {SOCKETS}/vm1.sock
    allow:
      - user: {person.name}
""")
    return stage.client(person)


def runtime_dir(pc: Client, length: int) -> Path:
    """Make a directory with a path of `length` bytes, and set XDG_RUNTIME_DIR to it."""
    parent = pc.person.directory(pc.runtime_dir)
    directory = parent / ("x" * (length - len(f"{parent}/")))
    pc.env["XDG_RUNTIME_DIR"] = str(pc.person.directory(directory))
    return directory


def near_end(client: Process) -> Path:
    client.says("/spice\n")
    return Path(client.out().strip())


def test_a_path_at_the_limit_stays_in_the_runtime_directory(
    long: Client, vm1: Vm, screen: Screen
) -> None:
    directory = runtime_dir(long, LIMIT - OURS)
    with long.at(screen).spice_connect("vm1") as client:
        client.until(lambda: screen.wait_for_window("vm1"), 30, "the viewer")
        screen.wait_for_colour(vm1.colour.rgb)
        (path,) = directory.glob("spice-*/spice")
        assert len(str(path)) == LIMIT
        assert not private_files_in_tmp(long.person)
        assert client.err() == ""
    vm1.wait_for_no_client()
    assert not list(directory.glob("spice-*"))


def test_a_path_above_the_limit_goes_to_tmp(long: Client, vm1: Vm) -> None:
    directory = runtime_dir(long, LIMIT - OURS + 1)
    with long.spice_connect("--no-viewer", "vm1") as client:
        path = near_end(client)
        assert path.parent.parent == Path("/tmp")
        assert not list(directory.iterdir())
        assert answer(path) == b"REDQ"
    vm1.wait_for_no_client()
    assert not private_files_in_tmp(long.person)


def answer(path: Path) -> bytes:
    """The first four bytes of the VM's answer to a link message."""
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(10)
        viewer.connect(str(path))
        viewer.sendall(link())
        return viewer.recv(4)


@pytest.fixture
def mallory_pc(stage: Stage, broker: Broker, mallory: Person) -> Iterator[Client]:
    yield stage.client(mallory)
    for path in private_files_in_tmp(mallory):
        path.unlink() if path.is_symlink() else path.rmdir()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_name_that_another_user_already_made_in_tmp(
    stage: Stage, alice: Person, mallory_pc: Client, vm1: Vm, kind: str
) -> None:
    """alice's client refuses the directory, writes nothing into it, and does not remove it."""
    open_to_all = mallory_pc.person.directory(mallory_pc.runtime_dir / "open", 0o777)
    mallory_pc.runtime_dir.chmod(0o755)
    deed = (MAKE, FORESEEN_NAME) if kind == "directory" else (LINK, open_to_all, FORESEEN_NAME)
    assert outcome(mallory_pc, *deed) == "done"
    if kind == "directory":
        FORESEEN_NAME.chmod(0o777)
    before = FORESEEN_NAME.lstat()
    pc = stage.client(alice)
    del pc.env["XDG_RUNTIME_DIR"]
    argv = [str(stage.programs / "python"), "-I", "-c", FORESEEN, "--no-viewer", "vm1"]
    with pc.run(*argv) as client:
        assert client.wait() == 69
        assert "make a directory in /tmp" in client.err()
    after = FORESEEN_NAME.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list(open_to_all.iterdir())


def test_another_users_runtime_directory_is_not_used(
    stage: Stage, alice: Person, mallory_pc: Client, vm1: Vm
) -> None:
    """`su` without a dash passes it on. The client uses /tmp, even if it may write there."""
    mallory_pc.runtime_dir.chmod(0o777)
    before = list(mallory_pc.runtime_dir.iterdir())
    env = {"XDG_RUNTIME_DIR": str(mallory_pc.runtime_dir)}
    with stage.client(alice).spice_connect("--no-viewer", "vm1", env=env) as client:
        assert near_end(client).parent.parent == Path("/tmp")
        assert list(mallory_pc.runtime_dir.iterdir()) == before


def test_a_runtime_directory_without_room_for_a_file(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen
) -> None:
    """A tmpfs of one page: sockets and FIFOs need none, the viewer's connection file does."""
    pc = stage.client(alice).at(screen)
    small = alice.directory(pc.runtime_dir / "small")
    options = f"size=4k,mode=700,uid={alice.uid},gid={alice.gid}"
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small))
    try:
        (small / "ballast").write_bytes(bytes(4096))
        pc.env["XDG_RUNTIME_DIR"] = str(small)
        with pc.spice_connect("vm1") as client:
            assert client.wait(20) == 71
            told, hint = client.err().splitlines()
        assert re.fullmatch(
            rf"spice-connect: cannot use {small}/spice-\w+/session.vv: no space left on device",
            told,
        )
        assert hint.startswith("hint: make room there")
        assert [path.name for path in small.iterdir()] == ["ballast"]
    finally:
        run("umount", str(small))
        small.rmdir()
