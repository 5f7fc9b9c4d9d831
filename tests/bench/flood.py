"""Measures what others feel of a flood, beside the same without one: `script/bench flood` (root).

Eight processes flood one of the broker's sockets: of another local user, or through the ssh of a
person who may log in. Meanwhile the admin takes a grant away, a viewer opens a channel, and the
admin kicks somebody. Printed are the milliseconds until the viewer is cut, until its channel is
there, and until the kick is answered. `--rounds 1` is the short form, to see that the bench runs.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

from spicetunnel.admin.broker import ask_rows
from spicetunnel.common.errors import SpicetunnelError
from tests.bench.installed import Product, install_present
from tests.bench.plainvm import receive
from tests.bench.product import Session, vm_process
from tests.stage import flooders
from tests.stage.install import PYTHON
from tests.stage.machine import LOGS, RUN, Machine
from tests.stage.process import ENVIRONMENT, PREFIX, Process
from tests.stage.spice import DISPLAY, MAIN
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.stage.people import Person

FLOODERS = 8
WARM_UP = 1.0  # seconds of flood before anything is measured
CHANNELS = 5  # opened one after another in a round
MANY = 1000  # VMs of the person who lists
GIVE_UP = 30.0  # seconds

#: Milliseconds of each measurement of a round; infinite where it failed.
Figures = dict[str, list[float]]


class Flooded(Product):
    """With two people more: `mallory`, who may log in, and sees many VMs; `neighbour`, who has an
    account only."""

    def __init__(self, programs: Path, machine: Machine, vms: Mapping[str, Path]) -> None:
        self.mallory = machine.person("mallory")
        self.neighbour = machine.person("neighbour", gateway=False)
        super().__init__("new", programs, machine, vms)

    @property
    def run_dir(self) -> Path:
        return self._run_dir

    def allow(self, *vms: str) -> None:
        """Give the person these VMs, by an edit of the map."""
        new = self._map.with_name("new")
        new.write_text(self._map_of(vms))
        new.rename(self._map)

    def _map_text(self) -> str:
        return self._map_of(tuple(self.vms))

    def _map_of(self, vms: tuple[str, ...]) -> str:
        """One VM a line. Those that mallory lists are off."""
        lines = ["limits: {opens-per-minute: 250, sessions-per-user: 250}", "vms:"]
        for name, path in self.vms.items():
            grants = f"{{user: {self._person.name}}}" if name in vms else ""
            lines.append(f"  {name}: {{socket: {path}, allow: [{grants}]}}")
        allow = f"allow: [{{user: {self.mallory.name}}}]"
        lines += [f"  many{n}: {{socket: {RUN}/many{n}, {allow}}}" for n in range(MANY)]
        return "\n".join([*lines, ""])

    def ssh_as(self, person: Person, *options: str) -> list[str]:
        return self._sshd.ssh_argv(person, *options)


def floods(product: Flooded) -> dict[str, Callable[[], contextlib.AbstractContextManager[None]]]:
    tunnel, control = product.run_dir / "tunnel.sock", product.run_dir / "control.sock"
    neighbour, mallory = product.neighbour, product.mallory
    return {
        "no flood": contextlib.nullcontext,
        "neighbour connects to tunnel.sock": lambda: _local("connect-stream", tunnel, neighbour),
        "neighbour connects to control.sock": lambda: _local("connect-packet", control, neighbour),
        "neighbour holds tunnel.sock": lambda: _local("hold-stream", tunnel, neighbour),
        "neighbour holds control.sock": lambda: _local("hold-packet", control, neighbour),
        "mallory connects to tunnel.sock": lambda: _local("connect-stream", tunnel, mallory),
        "mallory connects to control.sock": lambda: _local("connect-packet", control, mallory),
        "mallory forwards to tunnel.sock": lambda: _forwarded(product, "connect-stream", tunnel),
        "mallory holds forwards": lambda: _forwarded(product, "hold-stream", tunnel),
        "mallory lists": lambda: _listing(product),
    }


@contextlib.contextmanager
def _local(kind: str, path: Path, person: Person) -> Iterator[None]:
    """Programs of this person on the host."""
    with contextlib.ExitStack() as running:
        for number in range(FLOODERS):
            running.callback(_end, _flooder(kind, path, number, person))
        yield


@contextlib.contextmanager
def _forwarded(product: Flooded, kind: str, tunnel: Path) -> Iterator[None]:
    """Through an ssh each, of a person who may log in, and has no session."""
    with contextlib.ExitStack() as running:
        for number in range(FLOODERS):
            near = RUN / f"flood-{number}"
            near.unlink(missing_ok=True)
            argv = product.ssh_as(product.mallory, "-N", "-L", f"{near}:{tunnel}")
            ssh = Process(argv, LOGS / f"flood-ssh-{number}")
            running.callback(ssh.kill)
            ssh.until(near.exists, 10, "ssh to forward")
            running.callback(_end, _flooder(kind, near, number, None))
        yield


@contextlib.contextmanager
def _listing(product: Flooded) -> Iterator[None]:
    """Lists as fast as one connection of ssh's serves them, twice as many as there are flooders."""
    with contextlib.ExitStack() as running:
        for number in range(2 * FLOODERS):
            master = RUN / f"master-{number}"
            options = ("-o", f"ControlPath={master}", "-o", "ControlMaster=auto")
            argv = product.ssh_as(product.mallory, *options, "-o", "ControlPersist=yes")
            once = " ".join([*argv, "list"])
            loop = f"while :; do {once} >/dev/null 2>&1; done"
            shell = Process(["sh", "-c", loop], LOGS / f"flood-list-{number}")
            running.callback(_end_master, [*argv, "-O", "exit"])
            running.callback(shell.kill)
        yield


def _end(flooder: Process) -> None:
    if not flooder.alive():
        raise StageError(f"there was no flood: {flooder.tail()}")
    flooder.kill()


def _end_master(argv: list[str]) -> None:
    subprocess.run([*PREFIX, *argv], capture_output=True, env=ENVIRONMENT, check=False)


def _flooder(kind: str, path: Path, number: int, person: Person | None) -> Process:
    argv = [PYTHON, "-I", "-c", flooders.CODE, kind, str(path)]
    return Process(argv, LOGS / f"flooder-{number}", person=person)


def measure(
    product: Flooded, flood: Callable[[], contextlib.AbstractContextManager[None]]
) -> Figures:
    """One round."""
    with contextlib.ExitStack() as running:
        sessions = [running.enter_context(Session(product, f"vm{n}")) for n in range(3)]
        mains = [running.enter_context(each.channel(MAIN)) for each in sessions]
        running.enter_context(flood())
        time.sleep(WARM_UP)
        return {
            "channel": [_milliseconds(lambda: _open(sessions[0])) for _ in range(CHANNELS)],
            "kick": [_milliseconds(lambda: _kick(product))],
            "cut": [_milliseconds(lambda: _cut(product, mains[2]))],
        }


def _milliseconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    try:
        work()
    except (OSError, EOFError, SpicetunnelError):
        return math.inf
    return 1e3 * (time.perf_counter() - started)


def _open(session: Session) -> None:
    with session.channel(DISPLAY):
        pass


def _kick(product: Flooded) -> None:
    which = {"vm": "vm1", "user": "", "session": ""}
    if not ask_rows(str(product.run_dir), "kick", key="kicked", **which):
        raise StageError("nobody was kicked")


def _cut(product: Flooded, main: socket.socket) -> None:
    product.allow(*(vm for vm in product.vms if vm != "vm2"))
    main.settimeout(GIVE_UP)
    with contextlib.suppress(EOFError):
        receive(main, 1)


def report(found: dict[str, list[Figures]]) -> None:
    print(f"\n{'milliseconds: median (worst)':<38} {'channel':>16} {'kick':>16} {'cut':>16}")
    for name, rounds in found.items():
        cells = []
        for what in ("channel", "kick", "cut"):
            values = [value for figures in rounds for value in figures[what]]
            cells.append(f"{statistics.median(values):7.0f} ({max(values):5.0f})")
        print(f"  {name:<36} " + " ".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="WORDS", help="floods with these words")
    options = parser.parse_args()
    with Machine() as machine, contextlib.ExitStack() as parts:
        vms = {name: RUN / name for name in ("vm0", "vm1", "vm2")}
        parts.enter_context(vm_process(list(vms.values())))
        product = parts.enter_context(Flooded(install_present(), machine, vms))
        found: dict[str, list[Figures]] = {}
        for name, flood in floods(product).items():
            if options.only in name:
                found[name] = []
                for _ in range(options.rounds):
                    product.allow(*product.vms)
                    wait_until(lambda: _at_rest(product), 20, "the round before to be over")
                    found[name].append(measure(product, flood))
        report(found)


def _at_rest(product: Flooded) -> bool:
    return not ask_rows(str(product.run_dir), "sessions")


if __name__ == "__main__":
    main()
