"""A client PC with two people on it: alice has a VM open, and mallory wants to get at it.

All of it is refused by the PC's own kernel: the near end is a socket in a directory of alice's
alone. The same with her runtime directory and, where she has none, below /tmp.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.machine import processes, words
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

#: What mallory runs, with one attack in it: `directory` is alice's private one, `pid` her client.
INTRUDER = """\
import ctypes, os, socket, sys
directory, pid = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)

def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

try:
    {attack}
except PermissionError as error:
    print("refused:", error.strerror)
else:
    print("got in")
"""

ATTACKS = {
    "connect_to_the_socket": "connect(f'{directory}/spice')",
    "connect_through_her_root": "connect(f'/proc/{pid}/root{directory}/spice')",
    "connect_through_her_working_directory": "connect(f'/proc/{pid}/cwd{directory}/spice')",
    "list_the_directory": "os.listdir(directory)",
    "go_into_the_directory": "os.chdir(directory)",
    "read_the_connection_file": "open(f'{directory}/session.vv')",
    "write_into_ssh_s_log": "os.open(f'{directory}/log-1', os.O_WRONLY | os.O_NONBLOCK)",
    "look_at_her_descriptors": "os.listdir(f'/proc/{pid}/fd')",
    "read_her_environment": "open(f'/proc/{pid}/environ').read()",
    "read_her_memory": "open(f'/proc/{pid}/mem', 'rb')",
    "take_a_descriptor": "call(438, os.pidfd_open(pid), 3, 0)",  # pidfd_getfd(2)
    "trace_her_client": "call(101, 16, pid, 0, 0)",  # ptrace(2), PTRACE_ATTACH
    "end_her_client": "os.kill(pid, 15)",
    "rename_the_directory": "os.rename(directory, '/tmp/mine')",
    "remove_the_socket": "os.unlink(f'{directory}/spice')",
    "put_a_link_in_the_directory_s_place": "os.rename(directory, directory + 'x')",
    "make_it_everybody_s": "os.chmod(directory, 0o777)",
}


@dataclass
class Victim:
    pc: Client
    client: Process
    directory: Path


@pytest.fixture(params=["runtime-directory", "tmp"])
def runtime(request: pytest.FixtureRequest) -> dict[str, str]:
    return {} if request.param == "runtime-directory" else {"XDG_RUNTIME_DIR": ""}


@pytest.fixture
def victim(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, screen: Screen, runtime: dict[str, str]
) -> Iterator[Victim]:
    pc = stage.client(alice).at(screen)
    with pc.spice_connect("vm1", env=runtime) as client:
        screen.wait_for_colour(vm1.colour.rgb)
        yield Victim(pc, client, private_directory(alice))
        assert client.alive()


def private_directory(person: Person) -> Path:
    """As ssh was told."""
    (ssh,) = [words(pid) for pid in processes({person.uid}) if "ExitOnForward" in words(pid)]
    return Path(ssh.split(" -L ")[1].split(":")[0]).parent


def attack(mallory: Client, victim: Victim, code: str) -> str:
    program = INTRUDER.format(attack=code)
    target = (str(victim.directory), str(victim.client.pid))
    with mallory.run("/usr/bin/python3", "-c", program, *target) as intruder:
        assert intruder.wait() == 0, intruder.err()
        return intruder.out().strip()


def test_all_that_another_local_user_tries_is_refused(
    stage: Stage, victim: Victim, mallory: Person, vm1: Vm
) -> None:
    pc = stage.client(mallory)
    wait_until(lambda: vm1.spice_clients() == 7, 10, "the viewer to open all its channels")
    found = {name: attack(pc, victim, code) for name, code in ATTACKS.items()}
    assert {name: said for name, said in found.items() if not said.startswith("refused: ")} == {}
    assert vm1.spice_clients() == 7


def test_alice_herself_could_do_it(victim: Victim) -> None:
    """So the attacks are real ones."""
    for name in "connect_to_the_socket", "list_the_directory", "look_at_her_descriptors":
        assert attack(victim.pc, victim, ATTACKS[name]) == "got in"


@pytest.mark.parametrize("kind", ["directory", "link", "open-directory"])
def test_a_runtime_directory_that_mallory_made_is_not_used(
    stage: Stage, broker: Broker, alice: Person, mallory: Person, vm1: Vm, tmp_path: Path, kind: str
) -> None:
    bait = make_bait(kind, alice, mallory)
    pc = stage.client(alice)
    with pc.spice_connect("--no-viewer", "vm1", env={"XDG_RUNTIME_DIR": str(bait)}) as client:
        socket = client.says("/spice").strip()
        assert socket.startswith("/tmp/spice-")
        assert Path(socket).parent.stat().st_mode & 0o777 == 0o700
        assert list(bait.iterdir()) == []


def make_bait(kind: str, alice: Person, mallory: Person) -> Path:
    """A fit name in mallory's hands: it is theirs, leads to theirs, or is open to them."""
    theirs = mallory.directory(mallory.home / f"bait-{kind}", 0o755)
    mallory.home.chmod(0o755)
    if kind == "open-directory":
        return alice.owns(theirs, 0o777)
    if kind == "directory":
        return theirs
    link = mallory.home / "bait"
    link.unlink(missing_ok=True)
    link.symlink_to(alice.owns(theirs, 0o700))
    return link
