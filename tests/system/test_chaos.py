"""Random actions and kills in random order: at the end nothing is left, and the log is complete.

`script/soak 10` runs it for ten minutes; the default is short. The seed of the random choices is
printed at the start: SOAK_SEED=N repeats them.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.broker import RELAY_DIR, RUN_DIR
from tests.stage.machine import GATE, processes, words
from tests.stage.stage import MAP, VMS
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.stage.broker import Broker, Line
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.stage import Stage

SECONDS = float(os.environ.get("SOAK_SECONDS", "45"))
RUNNING = ("vm1", "vm2")
MAPS = {
    "as usual": MAP,
    "without alice": MAP.replace("st-alice", "st-nobody"),
    "alice looks on": MAP.replace("user: st-alice", "{user: st-alice, view-only: true}", 1),
    "shared": MAP.replace("  vm2:\n", "  vm2:\n    seat: shared\n"),
    "broken": MAP + "  vm9: {sock: /x}\n",
}
#: The processes that run as the person, by a pattern of their command line.
PARTS = {
    "viewer": "remote-viewer",
    "ssh": "ExitOnForwardFailure",
    "gate": GATE,
    "sshd": "sshd: st-",
    "client": "spice-connect",
}


class Chaos:
    def __init__(self, stage: Stage, pcs: list[Client], seed: int) -> None:
        self.stage = stage
        self.pcs = pcs
        self.dice = random.Random(seed)
        self.clients: list[Process] = []
        self.done: Counter[str] = Counter()
        actions: list[tuple[Callable[[], None], int]] = [
            (self.open, 8),
            (self.kill_a_part, 6),
            (self.stop_a_part, 2),
            (self.interrupt, 3),
            (self.kill_broker, 2),
            (self.restart_broker, 1),
            (self.kill_relay, 1),
            (self.kill_both, 1),
            (self.kill_a_relay_process, 1),
            (self.stop_a_relay_process, 1),
            (self.kill_qemu, 1),
            (self.edit_the_map, 3),
            (self.look_on, 2),
        ]
        self.actions = [action for action, weight in actions for _ in range(weight)]

    def play(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action = self.dice.choice(self.actions)
            self.done[action.__name__] += 1
            action()
            time.sleep(self.dice.uniform(0, 0.6))

    def open(self) -> None:
        if len(self._living()) >= 4:  # two cores
            return
        options = [
            option for option in ("--take-over", "--no-reconnect") if self.dice.random() < 0.4
        ]
        pc = self.dice.choice(self.pcs)
        self.clients.append(pc.spice_connect(*options, self.dice.choice(list(VMS))))

    def kill_a_part(self) -> None:
        name = self.dice.choice(list(PARTS))
        for pid in self._some(PARTS[name]):
            self.done[f"kill {name}"] += 1
            _signal(pid, signal.SIGKILL)

    def stop_a_part(self) -> None:
        """SIGSTOP for a moment: the kernel's queues fill, and nobody answers."""
        pids = self._some(PARTS[self.dice.choice(["gate", "ssh", "viewer"])])
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.1, 1.5))
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def interrupt(self) -> None:
        for client in self._living()[:1]:
            client.ctrl_c()

    def kill_broker(self) -> None:
        self.stage.broker.kill()
        time.sleep(self.dice.uniform(0, 2))
        self._ensure_broker()

    def restart_broker(self) -> None:
        self._ensure_broker()
        self.stage.broker.restart()

    def kill_relay(self) -> None:
        """Kill the parent. No session ends."""
        self.stage.relay.kill()
        time.sleep(self.dice.uniform(0, 2))
        self._ensure_relay()

    def kill_both(self) -> None:
        self.stage.relay.kill()
        self.stage.broker.kill()
        time.sleep(self.dice.uniform(0, 2))
        self._ensure_broker()

    def kill_a_relay_process(self) -> None:
        for pid in self._relay_processes():
            _signal(pid, signal.SIGKILL)

    def stop_a_relay_process(self) -> None:
        """SIGSTOP for a moment. A broker that starts meanwhile may take it for hung, and end it."""
        pids = self._relay_processes()
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.1, 1.5))
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def kill_qemu(self) -> None:
        name = self.dice.choice(RUNNING)
        self.stage.vm(name).kill()
        time.sleep(self.dice.uniform(0, 1))
        self.stage.vm(name)

    def edit_the_map(self) -> None:
        self.stage.write_map(MAPS[self.dice.choice(list(MAPS))])

    def look_on(self) -> None:
        """Do nothing, so that sessions have time to open all their channels."""
        time.sleep(1.5)

    def settle(self) -> None:
        """Start all parts, restore the map, and end all clients."""
        self._ensure_broker()
        for name in RUNNING:
            self.stage.vm(name)
        assert self.stage.set_map()
        for client in self._living():
            client.ctrl_c()
        for client in self.clients:
            client.wait(15)

    def _ensure_relay(self) -> None:
        if not self.stage.relay.alive():
            self.stage.relay.start()

    def _relay_processes(self) -> list[int]:
        found = sorted(self.stage.relay.sessions())
        return self.dice.sample(found, min(len(found), 1))

    def _ensure_broker(self) -> None:
        self._ensure_relay()
        if not self.stage.broker.alive():
            self.stage.broker.start()

    def _living(self) -> list[Process]:
        return [client for client in self.clients if client.alive()]

    def _some(self, pattern: str) -> list[int]:
        uids = {pc.person.uid for pc in self.pcs}
        found = sorted(pid for pid in processes(uids) if re.search(pattern, words(pid)))
        return self.dice.sample(found, min(len(found), 1))


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has already ended


def test_chaos_leaves_nothing_behind(
    stage: Stage,
    broker: Broker,
    alice: Person,
    bob: Person,
    carol: Person,
    screen: Screen,
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = [alice, bob, carol]
    for name in RUNNING:
        stage.vm(name)
    broker.restart()  # a fresh one, so that leaks show
    with stage.gate_ssh(alice, "list") as ssh:
        assert ssh.wait() == 0  # the first look-up of a user opens descriptors that stay open
    wait_until(lambda: not list(processes(uids(people))), 10, "the last test's processes to end")
    mark = broker.mark()
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 1_000_000))
    chaos = Chaos(stage, [stage.client(person).at(screen) for person in people], seed)
    with capsys.disabled():
        print(f"\nchaos for {SECONDS:g} s, SOAK_SEED={seed}", flush=True)
    try:
        chaos.play(SECONDS)
        chaos.settle()
    finally:
        for client in chaos.clients:
            client.kill()
    with capsys.disabled():
        print(dict(chaos.done), flush=True)
    assert_nothing_left(stage, chaos, people)
    assert_log_pairs_up(broker.audit(mark))


def uids(people: list[Person]) -> set[int]:
    return {person.uid for person in people}


def assert_nothing_left(stage: Stage, chaos: Chaos, people: list[Person]) -> None:
    def left() -> list[str]:
        found = [f"process {words(pid)}" for pid in processes(uids(people))]
        for pc in chaos.pcs:
            kept = {"dconf", "at-spi", "doc"}  # GTK's own
            found += [str(each) for each in pc.runtime_dir.iterdir() if each.name not in kept]
        found += [f"record {each}" for each in (RUN_DIR / "sessions").iterdir()]
        found += [f"relay socket {each}" for each in (RELAY_DIR / "sessions").iterdir()]
        found += [f"relay process {pid}" for pid in stage.relay.sessions()]
        found += [f"{name}: a client" for name in RUNNING if stage.vm(name).spice_clients()]
        found += [f"broker: {each}" for each in descriptors_of_sessions(stage.broker.pid)]
        return found

    # A gate that was stopped during a restart of the broker is waited for: 10 s, and a reserve.
    wait_until(lambda: not left(), 25, lambda: f"nothing to be left, not {left()}")
    with stage.gate_ssh(people[2], "list") as ssh:  # carol may use both
        assert ssh.wait() == 0
        states = [line.split()[:2] for line in ssh.out().splitlines()[1:]]
    assert states == [["vm1", "free"], ["vm2", "free"]]


def descriptors_of_sessions(pid: int) -> list[str]:
    """The broker's descriptors that belong to sessions: pidfds, and sockets beyond its own."""
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = [link for link in links if link.startswith("socket:")]
    own = 2 + 2  # control.sock, tunnel.sock; the event loop's pair
    leaked = [link for link in links if "pidfd" in link]
    return leaked + sockets[own:]


def assert_log_pairs_up(lines: list[Line]) -> None:
    faults = [line for line in lines if line["event"] == "fault"]
    assert faults == []
    opened = [x["session"] for x in lines if x["event"] == "open" and x["decision"] == "allow"]
    ended = [x["session"] for x in lines if x["event"] == "session-end"]
    assert len(opened) == len(set(opened))
    assert Counter(opened) == Counter(ended)
    begun = [_channel(x) for x in lines if x["event"] == "channel" and x["decision"] == "allow"]
    over = [_channel(x) for x in lines if x["event"] == "channel-end"]
    assert Counter(begun) == Counter(over)
    assert opened, "no session was opened"


def _channel(line: Line) -> tuple[object, object]:
    return line["session"], line["channel"]
