"""Seats: one session at a time, free again when it ends; and the limits of one person."""

import os
import time
from collections.abc import Iterator
from functools import partial

import pytest

from spicetunnel.spice.link import CHANNEL_NOT_AVAILABLE, refusal
from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, PATIENCE, Server, Vm, wait_until
from tests.unit.broker.test_session_path import answer

RACES = 1000


def map_for_anybody(server: Server, more: str = "", grant: str = "") -> None:
    """Our account is a shared one, and every person it names may use vm1."""
    server.use_map(
        f"delegates: [{os.getuid()}]\n"
        "limits: {opens-per-minute: 250, sessions-per-user: 2}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', {more} allow: [{{everyone: true{grant}}}]}}}}\n"
    )


def open_request(name: str, **more: object) -> dict[str, object]:
    return {"v": 1, "op": "open", "vm": "vm1", "as": name, **more}


def test_exactly_one_of_two_simultaneous_opens_gets_the_seat(server: Server) -> None:
    """A thousand times."""
    map_for_anybody(server)
    vm = server.vm("vm1")
    sides = (server.other(), server.other())
    log, over = server.follow_log(), 0
    for turn in range(RACES):
        vm.drain_backlog()
        gates = [side.speaker() for side in sides]
        for number, gate in enumerate(gates if turn % 2 else reversed(gates)):
            gate.send(open_request(f"p{turn}-{number}"))
        answers = [gate.receive() for gate in gates]
        assert sorted(str(answer["event"]) for answer in answers) == ["ready", "refused"], turn
        (refused,) = (answer for answer in answers if answer["event"] == "refused")
        assert refused["code"] == 75, (turn, refused)
        for gate in gates:
            gate.close()
        over += wait_until(partial(_new_ends, log), "the seat to be free", PATIENCE * 2)
        assert over == turn + 1


def _new_ends(log: Iterator[list[str]]) -> int:
    """How many sessions have ended since the last call."""
    return sum("session-end" in line for line in next(log))


def test_seat_is_free_within_two_seconds_whichever_process_dies(server: Server) -> None:
    map_for_anybody(server)
    vm = server.vm("vm1")
    for turn, how in enumerate(("gate", "connection", "stopped gate's connection")):
        side = server.other()
        gate = side.gate("open --json vm1")
        assert gate["event"] == "ready", how
        if how == "stopped gate's connection":
            side.stop_gates()
        side.kill_gates() if how == "gate" else side.kill()
        gets_seat = partial(_gets_seat, server, vm, f"next{turn}")
        wait_until(gets_seat, f"the seat of a dead {how}", PATIENCE * 2)
        wait_until(lambda n=turn: len(server.audit_ends()) == 2 * n + 2, "both ends")  # type: ignore[misc]


def _gets_seat(server: Server, vm: Vm, name: str) -> bool:
    """Whether this person gets the seat, for a moment."""
    vm.drain_backlog()
    with server.speaker() as gate:
        gate.send(open_request(name))
        if gate.receive()["event"] == "ready":
            return True
    time.sleep(0.05)  # a person may open 250 times a minute here
    return False


def test_shared_seat_admits_several_people(server: Server) -> None:
    map_for_anybody(server, "seat: shared,")
    vm = server.vm("vm1")
    one, two = server.other(), server.other()
    assert one.say(open_request("anne"))["event"] == "ready"
    assert two.say(open_request("bob"))["event"] == "ready"
    for side in (one, two):
        server.through(side.connect(), vm)
    rows = server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert (rows[0]["state"], rows[0]["busy_by"]) == ("shared", "anne, bob")


def test_seat_that_is_no_longer_shared_ends_no_session(server: Server) -> None:
    """Their sessions go on; a third person must take over from both."""
    map_for_anybody(server, "seat: shared,")
    server.vm("vm1")
    sides = server.other(), server.other()
    for side, name in zip(sides, ("anne", "bob"), strict=True):
        assert side.say(open_request(name))["event"] == "ready"
    map_for_anybody(server, grant=", take-over: true")
    assert server.audit("session-end") == []
    third = server.other()
    assert third.say(open_request("carol"))["code"] == 75
    assert third.say(open_request("carol", take_over=True))["event"] == "ready"
    wait_until(lambda: len(server.audit_ends()) == 2, "both sessions to end")
    reasons = {str(line["reason"]) for line in server.audit("session-end")}
    assert all("was taken over by carol at" in reason for reason in reasons)


def test_own_older_session_hears_that_it_was_oneself(server: Server) -> None:
    map_for_anybody(server)
    server.vm("vm1")
    old = server.other()
    assert old.say(open_request("anne"))["event"] == "ready"
    assert server.other().say(open_request("anne", take_over=True))["event"] == "ready"
    (line,) = wait_until(lambda: server.audit("session-end"), "the old session to end")
    assert str(line["reason"]).startswith(
        "your seat at 'vm1' was taken over by yourself, from another place, at "
    )


def test_take_over_without_the_right_is_refused(server: Server) -> None:
    map_for_anybody(server)
    server.vm("vm1")
    assert server.other().say(open_request("anne"))["event"] == "ready"
    refused = server.other().say(open_request("bob", take_over=True))
    assert refused["code"] == 75
    assert refused["hint"] == "ask anne to leave, or wait for it: spice-connect --wait"


def test_old_session_is_cut_before_the_new_one_is_ready(server: Server) -> None:
    map_for_anybody(server, grant=", take-over: true")
    vm = server.vm("vm1")
    old, new = server.other(), server.other()
    old.say(open_request("anne"))
    _, far = server.through(old.connect(), vm)
    new.say(open_request("bob", take_over=True))
    far.setblocking(False)
    assert far.recv(1) == b""  # closed already when the new session is ready
    server.through(new.connect(), vm)


def test_open_is_refused_over_the_limit_of_sessions_per_user(server: Server) -> None:
    map_for_anybody(server, "seat: shared,")
    server.vm("vm1")
    for _ in range(2):
        assert server.other().say(open_request("anne"))["event"] == "ready"
    refused = server.other().say(open_request("anne"))
    assert (refused["code"], refused["reason"]) == (75, "you have 2 sessions already")
    assert server.audit("open")[-1]["reason"] == "you have 2 sessions already"
    assert server.other().say(open_request("bob"))["event"] == "ready"


def test_open_is_refused_over_the_limit_of_opens_per_minute(server: Server) -> None:
    server.use_map(
        "limits: {opens-per-minute: 3}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', allow: [{{user: {server.user}}}]}}}}\n"
    )
    codes = [server.gate("open --json vm1").says()["code"] for _ in range(4)]
    assert codes == [69, 69, 69, 75]
    (line,) = server.audit("refused")
    assert (line["op"], line["reason"]) == ("open", "you have asked 3 times within a minute")


@pytest.mark.parametrize(
    ("limits", "most"), [("{channels-per-session: 2}", 2), ("{}", 64)], ids=["map", "default"]
)
def test_channel_is_refused_over_the_limit_of_channels_per_session(
    server: Server, limits: str, most: int
) -> None:
    server.use_map(
        f"limits: {limits}\n"
        f"vms: {{vm1: {{socket: '{{dir}}/vm1', allow: [{{user: {server.user}}}]}}}}\n"
    )
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    for _ in range(most - 1):
        server.channel(vm, DISPLAY)
    one_more = server.connect()
    one_more.sendall(link(DISPLAY, 7))
    assert answer(one_more) == refusal(CHANNEL_NOT_AVAILABLE)
    (denied,) = server.denied("channel")
    assert denied["reason"] == f"more than {most} channels"
