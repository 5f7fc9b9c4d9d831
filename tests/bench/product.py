"""Measures the whole product, with the real ssh, sshd, gate, broker and relay. References are the
product of an older commit, and a plain `ssh -L` to the same VM: `script/bench product` (root).

All run at the same time and are measured in turn, so that noise affects all alike. Compare the
ratios: there is one per turn, a round's ratio is the median of its turns, and the median, least and
greatest of the rounds are printed. A single round is the short form, to see that the bench runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tests.bench.installed import Native, Product, has_commit, install_commit, install_present
from tests.bench.plainvm import order, receive, send
from tests.stage.install import PYTHON
from tests.stage.machine import LOGS, RUN, Machine
from tests.stage.process import ENVIRONMENT, PREFIX, Process
from tests.stage.sockets import is_listening
from tests.stage.spice import DISPLAY, MAIN, link
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
Way = Product | Native

#: The last commit whose gate relayed the bytes.
OLD = "b79fb0a"
BULK = 32 << 20  # bytes in one turn
ROUND_TRIPS = 50  # in one turn: 2000 per round
CHANNELS = 5  # per session, while memory is measured: main and the next four types
TOUCH = 1 << 20  # bytes each way through each of them, so that buffers have been used
#: The VM of the sessions that stay open for the measurements. Short sessions use vm0, vm1 and so
#: on: no VM twice in a row, because its seat becomes free some time after a session.
LONG = "long"
PAUSE = 0.02  # seconds before each measurement
SETTLE = 3.0  # seconds before memory is read: records are written, and the gates are idle by then


@dataclass(frozen=True)
class Amounts:
    """The number of turns per measurement in one round. In a turn, each way is measured once.
    `sessions`: how many are open while memory is read."""

    bulk: int = 8
    round_trip: int = 40
    channel: int = 100
    session: int = 10
    sessions: int = 10


SHORT = Amounts(bulk=1, round_trip=4, channel=10, session=2, sessions=2)

#: The values of one turn, by way; for memory, also by way and part.
Turn = dict[str, float]
#: All turns of one round, by title.
Figures = dict[str, list[Turn]]


class Session:
    """An ssh with an open session; a context manager. `seconds`: from its start until `ready`."""

    _numbers = itertools.count(1)

    def __init__(self, way: Way, vm: str) -> None:
        self._near = RUN / f"near-{next(self._numbers)}"
        argv = [*PREFIX, *way.ssh(vm, self._near)]
        with (LOGS / f"ssh-{way.name}.err").open("ab") as errors:
            started = time.perf_counter()
            self._ssh = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=ENVIRONMENT,
                cwd="/",
            )
            assert self._ssh.stdout
            line = self._ssh.stdout.readline()
            if line == b"\n":  # the gate's JSON begins on a fresh line
                line = self._ssh.stdout.readline()
            self.seconds = time.perf_counter() - started
        if b"ready" not in line:
            raise StageError(
                f"no session at {vm}: {line!r}, {Path(errors.name).read_text()[-1000:]}"
            )

    def channel(self, kind: int = DISPLAY) -> socket.socket:
        """Open a channel, and receive the VM's first byte."""
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(60)
        channel.connect(str(self._near))
        channel.sendall(link(kind, 0 if kind == MAIN else 7))
        receive(channel, 1)
        return channel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._ssh.terminate()
        self._ssh.communicate(timeout=10)


def down(session: Session) -> float:
    """MB/s from the VM."""
    with session.channel() as channel:
        started = time.perf_counter()
        channel.sendall(order(b"D", BULK))
        receive(channel, BULK)
        return BULK / (time.perf_counter() - started) / 1e6


def up(session: Session) -> float:
    """MB/s to the VM."""
    with session.channel() as channel:
        started = time.perf_counter()
        channel.sendall(order(b"U", BULK))
        send(channel, BULK)
        receive(channel, 1)
        return BULK / (time.perf_counter() - started) / 1e6


def round_trip(session: Session) -> float:
    """Median microseconds for a byte to the VM and back."""
    times = []
    with session.channel() as channel:
        channel.sendall(order(b"E", ROUND_TRIPS))
        for _ in range(ROUND_TRIPS):
            started = time.perf_counter()
            channel.sendall(b"x")
            channel.recv(1)
            times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


def open_channel(session: Session) -> float:
    """Milliseconds from connecting to the VM's first byte."""
    started = time.perf_counter()
    with session.channel():
        return 1e3 * (time.perf_counter() - started)


def memory(product: Product, amounts: Amounts) -> dict[str, Turn]:
    """KiB (PSS) of all our processes: without a session, and what each session adds."""
    product.stop()  # fresh daemons, because one that has grown before does not grow again
    product.start()
    idle = product.memory()
    with contextlib.ExitStack() as open_ones:
        for number in range(amounts.sessions):
            _use(open_ones, open_ones.enter_context(Session(product, f"vm{number}")))
        time.sleep(SETTLE)
        busy = product.memory(sessions=amounts.sessions)
    added = {part: (busy[part] - idle[part]) / amounts.sessions for part in busy}
    return {
        "memory without a session, KiB": _by_part(product.name, idle),
        "memory a session, KiB": _by_part(product.name, added),
    }


def _by_part(name: str, parts: dict[str, float]) -> Turn:
    return {name: sum(parts.values()), **{f"{name} {part}": parts[part] for part in parts}}


def _use(open_ones: contextlib.ExitStack, session: Session) -> None:
    for kind in range(MAIN, MAIN + CHANNELS):
        channel = open_ones.enter_context(session.channel(kind))
        channel.sendall(order(b"D", TOUCH))
        receive(channel, TOUCH)
        channel.sendall(order(b"U", TOUCH))
        send(channel, TOUCH)
        receive(channel, 1)


def play(ways: list[Way], amounts: Amounts) -> Figures:
    """Measure one round."""
    found = _in_sessions(ways, amounts)
    found["opening a session, ms"] = [
        {way.name: _open_and_close(way, f"vm{number}") for way in _in_turn(ways)}
        for number in range(amounts.session)
    ]
    for way in ways:
        if isinstance(way, Product):
            for title, turn in memory(way, amounts).items():
                found.setdefault(title, [{}])[0].update(turn)
    return found


def _in_sessions(ways: list[Way], amounts: Amounts) -> Figures:
    with contextlib.ExitStack() as open_ones:
        sessions = {way.name: open_ones.enter_context(Session(way, LONG)) for way in ways}
        for session in sessions.values():  # the broker refuses all others before it
            open_ones.enter_context(session.channel(MAIN))
        return {
            "bulk from the VM, MB/s": _turns(down, sessions, amounts.bulk),
            "bulk to the VM, MB/s": _turns(up, sessions, amounts.bulk),
            "round trip, us": _turns(round_trip, sessions, amounts.round_trip),
            "opening a channel, ms": _turns(open_channel, sessions, amounts.channel),
        }


def _turns(
    measure: Callable[[Session], float], sessions: dict[str, Session], count: int
) -> list[Turn]:
    return [{name: measure(sessions[name]) for name in _in_turn(sessions)} for _ in range(count)]


def _in_turn(names: Iterable[T]) -> Iterator[T]:
    """The names in random order, each after a pause: the end of the measurement before must not
    slow one way more often than another."""
    several = list(names)
    for name in random.sample(several, len(several)):
        time.sleep(PAUSE)
        yield name


def _open_and_close(way: Way, vm: str) -> float:
    with Session(way, vm) as session:
        return 1e3 * session.seconds


def report(rounds: list[Figures]) -> None:
    for title in rounds[0]:
        turns = [turn for each in rounds for turn in each[title]]
        print(f"\n{title}: median (min to max) of {len(turns)}")
        for name in sorted(turns[0], key=_rank):
            values = [turn[name] for turn in turns]
            if any(values):  # without a session, gates use no memory
                print(f"  {name:<16} {_spread(values, 9, 1)}")
        for peer in ("old", "native"):
            if peer in turns[0]:
                ratios = [
                    statistics.median(turn["new"] / turn[peer] for turn in each[title])
                    for each in rounds
                ]
                print(f"  {f'new/{peer}':<16} {_spread(ratios, 9, 2)}")


def _rank(name: str) -> tuple[int, str]:
    return ("old", "new", "native").index(name.split(maxsplit=1)[0]), name


def _spread(values: list[float], width: int, digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):{width}.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", metavar="COMMIT", default=OLD, help="default: %(default)s")
    options = parser.parse_args()
    amounts = SHORT if options.rounds == 1 else Amounts()
    with stage(options.against) as ways:
        if amounts is not SHORT:
            play(ways, SHORT)  # fills the caches
        rounds = [play(ways, amounts) for _ in range(options.rounds)]
    report(rounds)


@contextlib.contextmanager
def stage(commit: str) -> Iterator[list[Way]]:
    """The products and the plain ssh, running."""
    with Machine() as machine, contextlib.ExitStack() as parts:
        count = max(Amounts.sessions, Amounts.session)
        vms = {name: RUN / name for name in (LONG, *(f"vm{number}" for number in range(count)))}
        parts.enter_context(vm_process(list(vms.values())))
        programs = {"new": install_present()}
        if has_commit(commit):
            programs = {"old": install_commit(commit, programs["new"]), **programs}
            print(f"old: {commit}; new: this checkout; native: ssh -L without spicetunnel")
        else:
            print(f"no commit {commit} (a shallow clone?): the old product is not measured")
        ways: list[Way] = [Product(name, at, machine, vms) for name, at in programs.items()]
        ways.append(Native(machine, vms))
        for way in ways:
            parts.enter_context(way)
        yield ways


def vm_process(sockets: list[Path]) -> Process:
    program = Path(__file__).with_name("plainvm.py")
    process = Process([PYTHON, "-I", "-B", str(program), *map(str, sockets)], LOGS / "vms")
    process.until(lambda: all(map(is_listening, sockets)), 10, "the VMs to listen")
    return process


if __name__ == "__main__":
    main()
