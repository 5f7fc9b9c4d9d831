"""A PC with two users: the other user has no access to any part of a session.

alice has vm1 open, with the real ssh and viewer; mallory tries what a local user can try. alice
tries it too, unless it is destructive, and succeeds: so mallory fails for lack of rights only.
"""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import processes, words
from tests.system.test_nothing_left import private_files_in_tmp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.client import Client
    from tests.stage.stage import Stage

#: Runs a deed and prints the result: "done", or the name of the errno.
TRIAL = """\
import ctypes, errno, os, socket, sys

def call(name, *arguments):
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

try:
    ({deed})(*sys.argv[1:])
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
CONNECT = "lambda path: socket.socket(socket.AF_UNIX).connect(path)"
WRITE = "lambda path: os.open(path, os.O_WRONLY | os.O_NONBLOCK)"
READ, LIST, READ_LINK = "open", "os.listdir", "os.readlink"
MAKE, LINK, HARD_LINK = "os.mkdir", "os.symlink", "os.link"
RENAME, REMOVE = "os.rename", "os.rmdir"
END = "lambda pid: os.kill(int(pid), 15)"
READ_MEMORY = "lambda path: open(path, 'rb')"
TAKE_DESCRIPTOR = "lambda pid: call('syscall', 438, os.pidfd_open(int(pid)), 1, 0)"  # pidfd_getfd
TRACE = "lambda pid: call('ptrace', 16, int(pid), 0, 0)"  # PTRACE_ATTACH


class Opened:
    """alice's session, in `directory`. `near`: a directory of mallory's in the same file system."""

    def __init__(self, alice: Client, mallory: Client, directory: Path) -> None:
        self.alice, self.mallory = alice, mallory
        self.directory = directory
        self.socket, self.file = directory / "spice", directory / "session.vv"
        (self.log,) = directory.glob("log-*")
        in_tmp = directory.parent == Path("/tmp")
        self.near = directory.parent / "st-mallory" if in_tmp else mallory.runtime_dir
        mallory.person.directory(self.near)

    def processes(self) -> list[int]:
        """spice-connect, its janitor, ssh and the viewer; not alice's processes on the server."""
        programs = ("spice-connect", "ssh -F", "remote-viewer")
        of_alice = list(processes({self.alice.person.uid}))
        found = [pid for pid in of_alice if any(name in words(pid) for name in programs)]
        assert len(found) == 4, [words(pid) for pid in of_alice]
        return found

    def only_alice(self, deed: str, *arguments: object) -> bool:
        assert outcome(self.alice, deed, *arguments) == "done"
        return outcome(self.mallory, deed, *arguments) in {"EACCES", "EPERM"}

    def mallory_may_not(self, deed: str, *arguments: object) -> bool:
        return outcome(self.mallory, deed, *arguments) in {"EACCES", "EPERM"}


def outcome(pc: Client, deed: str, *arguments: object) -> str:
    argv = ["/usr/bin/python3", "-I", "-c", TRIAL.format(deed=deed), *map(str, arguments)]
    with pc.run(*argv) as trial:
        assert trial.wait() == 0, trial.err()
        return trial.out().strip()


@pytest.fixture(scope="module", params=["in the runtime directory", "in tmp"])
def opened(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Opened]:
    vm = stage.vm("vm1")
    if not stage.broker.alive():
        stage.broker.restart()
    stage.set_map()
    alice = stage.client(stage.person("alice")).at(stage.screen)
    mallory = stage.client(stage.person("mallory"))
    if request.param == "in tmp":
        del alice.env["XDG_RUNTIME_DIR"]
    with alice.spice_connect("vm1") as client:
        # Wait: libspice-server.so.1.14.2 can crash if a viewer ends while it connects.
        stage.screen.wait_for_colour(vm.colour.rgb)
        opened = Opened(alice, mallory, session_directory(alice))
        yield opened
        shutil.rmtree(opened.near)
        assert client.alive()
    vm.wait_for_no_client()


def session_directory(pc: Client) -> Path:
    """The session's only directory, which must be in the expected place."""
    (found,) = [*pc.runtime_dir.glob("spice-*"), *private_files_in_tmp(pc.person)]
    in_tmp = "XDG_RUNTIME_DIR" not in pc.env
    assert found.parent == (Path("/tmp") if in_tmp else pc.runtime_dir)
    return found


def test_connecting_to_the_socket(opened: Opened) -> None:
    assert opened.only_alice(CONNECT, opened.socket)


def test_reading_the_connection_file(opened: Opened) -> None:
    assert opened.only_alice(READ, opened.file)


def test_listing_the_directory(opened: Opened) -> None:
    assert opened.only_alice(LIST, opened.directory)


def test_writing_into_the_log(opened: Opened) -> None:
    assert opened.only_alice(WRITE, opened.log)


def test_the_directory_has_mode_0700_and_each_file_0600(opened: Opened) -> None:
    """The files would be closed to others even in an open directory."""
    assert stat.S_IMODE(opened.directory.stat().st_mode) == 0o700
    for path in opened.socket, opened.file, opened.log:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_access_through_the_root_of_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.only_alice(CONNECT, f"/proc/{pid}/root{opened.socket}")
        assert opened.only_alice(LIST, f"/proc/{pid}/root")


def test_access_through_the_working_directory_of_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.only_alice(CONNECT, f"/proc/{pid}/cwd{opened.socket}")
        assert opened.only_alice(READ_LINK, f"/proc/{pid}/cwd")


def test_access_through_the_descriptors_of_a_process(opened: Opened) -> None:
    holders = 0
    for pid in opened.processes():
        assert opened.only_alice(LIST, f"/proc/{pid}/fd")
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            if fd.readlink() == opened.log:
                assert opened.only_alice(WRITE, fd)
                holders += 1
    assert holders


def test_reading_the_environment_of_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.only_alice(READ, f"/proc/{pid}/environ")


def test_reading_the_memory_of_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.mallory_may_not(READ_MEMORY, f"/proc/{pid}/mem")


def test_taking_a_descriptor_of_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.only_alice(TAKE_DESCRIPTOR, pid)


def test_tracing_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.mallory_may_not(TRACE, pid)


def test_ending_a_process(opened: Opened) -> None:
    for pid in opened.processes():
        assert opened.mallory_may_not(END, pid)


def test_renaming_the_directory(opened: Opened) -> None:
    assert opened.mallory_may_not(RENAME, opened.directory, f"{opened.directory}-away")
    assert opened.mallory_may_not(RENAME, opened.directory, opened.near / "mine")
    assert opened.mallory_may_not(REMOVE, opened.directory)


def test_replacing_the_directory(opened: Opened) -> None:
    mine, moved = opened.near / "mine", opened.near / "moved"
    assert outcome(opened.mallory, MAKE, mine) == "done"
    assert outcome(opened.mallory, RENAME, mine, moved) == "done"
    assert opened.mallory_may_not(RENAME, moved, opened.directory)


def test_replacing_the_files_in_the_directory(opened: Opened) -> None:
    mine = opened.near / "link"
    assert outcome(opened.mallory, LINK, "/nowhere", mine) == "done"
    for path in opened.socket, opened.file, opened.log:
        assert opened.mallory_may_not(RENAME, mine, path)
        assert opened.mallory_may_not(RENAME, path, opened.near / "mine")
        assert opened.mallory_may_not(HARD_LINK, path, opened.near / "mine")
    assert opened.mallory_may_not(MAKE, opened.directory / "more")
