"""Random steps of people and machines, compared with a model of seats and sessions.

After each step, the broker's list must match the model. At the end, each opened session must have
exactly one end in the log.

The broker and the SSH connections are real processes. In the gates' place are programs that send
what the state machine wants; each request names its person, as our uid is a delegate's.
"""

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.broker.server import PATIENCE, OtherConnection, Server, Speaker, wait_until

VMS = ("vm1", "vm2", "shared")
PEOPLE = ("anne", "bob", "carol", "mallory")  # carol may take over, mallory has no grant
CONNECTIONS = 4

numbers = st.integers(0, CONNECTIONS - 1)
people = st.sampled_from(PEOPLE)
vms = st.sampled_from(VMS)


def grants(without: str = "") -> str:
    named = ", ".join(name for name in ("anne", "bob") if name != without)
    carols = ", {user: carol, take-over: true}" if without != "carol" else ""
    return f"[{{user: [{named}]}}{carols}]"


def map_text(without: str = "") -> str:
    """`without` is a person who has no grant for now."""
    lines = [f"delegates: [{os.getuid()}]"]
    lines += ["limits: {opens-per-minute: 250, sessions-per-user: 250}", "vms:"]
    for name in VMS:
        seat = "shared" if name == "shared" else "exclusive"
        lines += [f"  {name}: {{socket: '{{dir}}/{name}', seat: {seat}, allow: {grants(without)}}}"]
    return "\n".join([*lines, ""])


@dataclass
class Live:
    """A session as the model knows it."""

    id: str
    person: str
    vm: str
    gate: Speaker


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.parts = contextlib.ExitStack()
        directory = self.parts.enter_context(tempfile.TemporaryDirectory(prefix="st-"))
        self.server = Server(Path(directory))
        self.parts.callback(self.server.close)
        self.server.map.write_text(map_text().replace("{dir}", directory))
        self.server.start()
        self.vms = {name: self.server.vm(name) for name in VMS}
        self.connections = [OtherConnection(self.server) for _ in range(CONNECTIONS)]
        self.live: dict[int, Live] = {}
        self.barred = ""

    @rule(number=numbers, person=people, vm=vms, take_over=st.booleans())
    def open(self, number: int, person: str, vm: str, take_over: bool) -> None:
        self.vms[vm].drain_backlog()
        gate = self.connections[number].speaker()
        gate.send({"v": 1, "op": "open", "vm": vm, "as": person, "take_over": take_over})
        answer = gate.receive()
        expected = self._refusal(number, person, vm, take_over)
        if expected:
            assert (answer["event"], answer["code"]) == ("refused", expected)
            gate.close()
            return
        assert answer["event"] == "ready", answer
        for old in [] if vm == "shared" else self._at(vm):
            self._receive_end(old, 75)
        self.live[number] = Live(str(answer["session"]), person, vm, gate)

    def _refusal(self, number: int, person: str, vm: str, take_over: bool) -> int:
        """The exit code of the expected refusal; 0 if the session must open."""
        if person in {"mallory", self.barred}:
            return os.EX_NOPERM
        if number in self.live:
            return os.EX_USAGE
        holders = [self.live[each].person for each in self._at(vm)]
        if vm == "shared" or not holders:
            return 0
        may = take_over and (person == "carol" or holders == [person])
        return 0 if may else os.EX_TEMPFAIL

    @rule(person=people, vm=vms)
    def open_with_replace(self, person: str, vm: str) -> None:
        """With --replace and the id of the session in the way: only one's own is replaced."""
        free = [each for each in range(CONNECTIONS) if each not in self.live]
        holders = self._at(vm)
        if not free or not holders or vm == "shared" or person in {"mallory", self.barred}:
            return
        old = self.live[holders[0]]
        gate = self.connections[free[0]].speaker()
        self.vms[vm].drain_backlog()
        gate.send({"v": 1, "op": "open", "vm": vm, "as": person, "replace": old.id})
        answer = gate.receive()
        if old.person != person:
            assert answer["code"] == os.EX_TEMPFAIL
            gate.close()
            return
        assert answer["event"] == "ready", answer
        self._receive_end(holders[0], 75)
        self.live[free[0]] = Live(str(answer["session"]), person, vm, gate)

    @rule(number=numbers)
    def gate_leaves(self, number: int) -> None:
        if number in self.live:
            self.live.pop(number).gate.close()

    @rule(number=numbers)
    def connection_dies(self, number: int) -> None:
        self.connections[number].kill()
        self.connections[number].close()
        if number in self.live:
            self._receive_end(number, 70)
        self.connections[number] = OtherConnection(self.server)

    @rule(person=people)
    def map_bars_a_person(self, person: str) -> None:
        self.barred = person
        self.server.use_map(map_text(without=person))
        for number in [each for each in self.live if self.live[each].person == person]:
            self._receive_end(number, 77)

    @precondition(lambda self: self.barred)
    @rule()
    def map_bars_nobody(self) -> None:
        self.barred = ""
        self.server.use_map(map_text())

    @rule()
    def relay_restarts(self) -> None:
        """The relay's parent process is killed: all sessions go on."""
        self.server.kill_relay()
        self.server.start_relay()

    @rule(dying=st.sets(numbers, max_size=2), cleanly=st.booleans(), early=vms)
    def broker_restarts(self, dying: set[int], cleanly: bool, early: str) -> None:
        """Some connections die while there is no broker. On each of the others, an open before the
        gate has resumed is refused: one connection has one session.
        """
        self.server.stop_broker() if cleanly else self.server.kill_broker()
        for number in dying:
            self.connections[number].kill()
            self.connections[number].close()
            self.connections[number] = OtherConnection(self.server)
            if number in self.live:
                self.live.pop(number).gate.close()
        self.server.start()
        for number, session in self.live.items():
            session.gate.close()
            self._open_too_early(number, session.person, early)
            session.gate = self.connections[number].speaker()
            about = {"session": session.id, "as": session.person}
            session.gate.send({"v": 1, "op": "resume", **about})
            assert session.gate.receive()["event"] == "resumed"

    def _open_too_early(self, number: int, person: str, vm: str) -> None:
        self.vms[vm].drain_backlog()
        with self.connections[number].speaker() as gate:
            gate.send({"v": 1, "op": "open", "vm": vm, "as": person, "take_over": True})
            assert gate.receive()["code"] == os.EX_USAGE

    @invariant()
    def list_matches_the_model(self) -> None:
        wait_until(self._list_matches, self._difference, PATIENCE * 2)

    def _list_matches(self) -> bool:
        if self._listed() == self._expected():
            return True
        time.sleep(0.05)  # a person may ask 600 times a minute
        return False

    def _listed(self) -> dict[str, str]:
        """Who uses each VM, as listed for a person whom the map does not bar."""
        for vm in self.vms.values():
            vm.drain_backlog()
        asker = "bob" if self.barred != "bob" else "anne"
        with self.server.speaker() as speaker:
            speaker.send({"v": 1, "op": "list", "as": asker})
            rows = speaker.receive()["vms"]
        assert isinstance(rows, list)
        return {row["name"]: row["busy_by"] for row in rows}

    def _expected(self) -> dict[str, str]:
        names = ((vm, {self.live[each].person for each in self._at(vm)}) for vm in VMS)
        return {vm: ", ".join(sorted(people)) for vm, people in names}

    def _difference(self) -> str:
        return f"the list to be {self._expected()}; it was {self._listed()}"

    def _at(self, vm: str) -> list[int]:
        return [number for number, each in self.live.items() if each.vm == vm]

    def _receive_end(self, number: int, code: int) -> None:
        session = self.live.pop(number)
        said = session.gate.receive()
        assert (said["event"], said["code"]) == ("end", code), said
        session.gate.close()

    def teardown(self) -> None:
        for session in self.live.values():
            session.gate.close()
        for connection in self.connections:
            connection.close()
        with self.parts:
            wait_until(self._log_pairs_up, "every session of the log to have its end", 60)

    def _log_pairs_up(self) -> bool:
        opened = [x["session"] for x in self.server.audit("open") if x["decision"] == "allow"]
        ended = [x["session"] for x in self.server.audit("session-end")]
        assert len(ended) == len(set(ended)), "a session ended twice"
        return sorted(map(str, opened)) == sorted(map(str, ended))


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
