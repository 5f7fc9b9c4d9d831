"""The seat: one at a time, never doubled, never stale; and how much one person may have."""

import os
import time
from collections.abc import Iterator
from functools import partial

from tests.unit.broker.server import DISPLAY, Server, Speaker, link, wait_until

RACES = 1000


def map_for_anybody(server: Server, more: str = "", grant: str = "") -> None:
    """We are a shared account, and whoever it says may use vm1."""
    server.use_map(
        f"delegates: [{os.getuid()}]\n"
        "limits: {opens-per-minute: 250, sessions-per-user: 2}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', {more} allow: [{{everyone: true{grant}}}]}}}}\n"
    )


def wish(name: str, **more: object) -> dict[str, object]:
    return {"v": 1, "op": "open", "vm": "vm1", "as": name, **more}


def test_of_two_who_open_at_the_same_instant_exactly_one_gets_the_seat(server: Server) -> None:
    """A thousand times."""
    map_for_anybody(server)
    vm = server.vm("vm1")
    sides = (server.other(), server.other())
    log, over = server.follow_log(), 0
    for turn in range(RACES):
        vm.forget()
        gates = [side.speaker() for side in sides]
        for number, gate in enumerate(gates if turn % 2 else reversed(gates)):
            gate.send(wish(f"p{turn}-{number}"))
        answers = [gate.receive() for gate in gates]
        assert sorted(str(answer["event"]) for answer in answers) == ["ready", "refused"], turn
        (refused,) = (answer for answer in answers if answer["event"] == "refused")
        assert refused["code"] == 75, (turn, refused)
        for gate in gates:
            gate.close()
        over += wait_until(partial(_ends, log), "the seat to be free", 2)
        assert over == turn + 1


def _ends(log: Iterator[list[str]]) -> int:
    """Of sessions, since the last look."""
    return sum("session-end" in line for line in next(log))


def test_seat_is_free_again_whatever_dies(server: Server) -> None:
    map_for_anybody(server)
    server.vm("vm1")
    for how in ("gate", "connection", "stopped gate's connection"):
        side = server.other()
        gate = side.gate("open --json vm1")
        assert gate["event"] == "ready", how
        if how == "stopped gate's connection":
            side.stop_gates()
        started = time.monotonic()
        side.kill_gates() if how == "gate" else side.kill()
        with server.speaker() as next_one:
            _until_ready(next_one, wish("somebody"))
        assert time.monotonic() - started < 2, how


def _until_ready(gate: Speaker, request: dict[str, object]) -> None:
    """Ask again and again; each is a connection of its own."""
    while True:
        with gate.again() as once:
            once.send(request)
            if once.receive()["event"] == "ready":
                return


def test_shared_seat_lets_everybody_in_who_may(server: Server) -> None:
    map_for_anybody(server, "seat: shared,")
    vm = server.vm("vm1")
    one, two = server.other(), server.other()
    assert one.say(wish("anne"))["event"] == "ready"
    assert two.say(wish("bob"))["event"] == "ready"
    for side in (one, two):
        server.through(side.connect(), vm)
    rows = server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert (rows[0]["state"], rows[0]["busy_by"]) == ("shared", "anne, bob")


def test_seat_that_is_no_longer_shared_throws_nobody_out(server: Server) -> None:
    """Those who are there stay; who comes has to take over from all of them."""
    map_for_anybody(server, "seat: shared,")
    server.vm("vm1")
    sides = server.other(), server.other()
    for side, name in zip(sides, ("anne", "bob"), strict=True):
        assert side.say(wish(name))["event"] == "ready"
    map_for_anybody(server, grant=", take-over: true")
    assert server.audit("session-end") == []
    third = server.other()
    assert third.say(wish("carol"))["code"] == 75
    assert third.say(wish("carol", take_over=True))["event"] == "ready"
    wait_until(lambda: len(server.audit_ends()) == 2, "the two to be out")
    reasons = {str(line["reason"]) for line in server.audit("session-end")}
    assert all("was taken over by carol at" in reason for reason in reasons)


def test_take_over_without_the_right_is_refused(server: Server) -> None:
    map_for_anybody(server)
    server.vm("vm1")
    assert server.other().say(wish("anne"))["event"] == "ready"
    refused = server.other().say(wish("bob", take_over=True))
    assert refused["code"] == 75
    assert refused["hint"] == "ask anne to leave, or try later"


def test_loser_is_cut_off_before_the_winners_first_byte(server: Server) -> None:
    map_for_anybody(server, grant=", take-over: true")
    vm = server.vm("vm1")
    loser, winner = server.other(), server.other()
    loser.say(wish("anne"))
    _, far = server.through(loser.connect(), vm)
    winner.say(wish("bob", take_over=True))
    far.setblocking(False)
    assert far.recv(1) == b""  # already, when the winner has heard of it
    server.through(winner.connect(), vm)


def test_more_sessions_than_one_person_may_have(server: Server) -> None:
    map_for_anybody(server, "seat: shared,")
    server.vm("vm1")
    for _ in range(2):
        assert server.other().say(wish("anne"))["event"] == "ready"
    refused = server.other().say(wish("anne"))
    assert (refused["code"], refused["reason"]) == (75, "you have 2 sessions already")
    assert server.audit("open")[-1]["reason"] == "you have 2 sessions already"
    assert server.other().say(wish("bob"))["event"] == "ready"


def test_more_opens_in_a_minute_than_one_person_may_ask_for(server: Server) -> None:
    server.use_map(
        "limits: {opens-per-minute: 3}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', allow: [{{user: {server.user}}}]}}}}\n"
    )
    codes = [server.gate("open --json vm1").says()["code"] for _ in range(4)]
    assert codes == [69, 69, 69, 75]
    (line,) = server.audit("refused")
    assert (line["op"], line["reason"]) == ("open", "you have asked 3 times within a minute")


def test_more_channels_than_one_session_may_have(server: Server) -> None:
    server.use_map(
        "limits: {channels-per-session: 2}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', allow: [{{user: {server.user}}}]}}}}\n"
    )
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    server.channel(vm, 2)
    third = server.connect()
    third.sendall(link(DISPLAY, 7))
    assert third.recv(1000)[:4] == b"REDQ"
    denied = [line for line in server.audit("channel") if line["decision"] == "deny"]
    assert denied[0]["reason"] == "more than 2 channels"
