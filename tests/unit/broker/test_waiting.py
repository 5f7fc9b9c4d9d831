"""`open --wait`: for a seat, for a window; and what the list says of both."""

import os
import signal
from datetime import UTC, datetime, timedelta

from tests.unit.broker.server import Server, other_connection, wait_until
from tests.unit.broker.test_rights import use
from tests.unit.broker.test_seats import map_for_anybody, open_request

TOMORROW = (datetime.now(UTC) + timedelta(days=2)).date()


def only_row(answer: dict[str, object]) -> dict[str, object]:
    rows = answer["vms"]
    assert isinstance(rows, list)
    (row,) = rows
    assert isinstance(row, dict)
    return row


def test_a_seat_is_waited_for(server: Server) -> None:
    map_for_anybody(server)
    server.vm("vm1")
    with other_connection(server) as anne:
        anne.say(open_request("anne"))
        bob = server.other().speaker()
        bob.send(open_request("bob", wait=True))
        waiting = bob.receive()
        (words,) = dict(waiting["times"])  # type: ignore[call-overload]
        reason = f"'vm1' is in use by anne since {words}; waiting for it to be free"
        assert (waiting["event"], waiting["reason"]) == ("waiting", reason)
    assert bob.receive()["event"] == "ready"
    bob.close()


def test_a_window_is_waited_for(server: Server) -> None:
    server.restart_patched("from spicetunnel.broker import waiting; waiting.CLOSED_POLL = 0.2")
    use(server, f"starts: {TOMORROW}")
    server.vm("vm1")
    gate = server.gate("open --json --wait vm1")
    waiting = gate.says()
    assert waiting["event"] == "waiting"
    assert str(waiting["reason"]).startswith("you may not use 'vm1' now; waiting: your next window")
    use(server, "")
    assert gate.says()["event"] == "ready"


def test_who_has_no_grant_is_refused_at_once(server: Server) -> None:
    """A wait would say that the VM exists."""
    server.write_map("nobody-else", "vm1")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) == 2, "the reload")
    assert server.gate("open --json --wait vm1").says()["code"] == 77


def test_a_refusal_has_the_instants_of_its_moments(server: Server) -> None:
    use(server, f"starts: {TOMORROW}")
    refused = server.gate("open --json vm1").says()
    ((words, moment),) = dict(refused["times"]).items()  # type: ignore[call-overload]
    assert words in str(refused["hint"])
    assert str(moment).startswith(f"{TOMORROW}T00:00:00")


def test_the_list_says_what_is_limited_and_whether_the_seat_can_be_taken(server: Server) -> None:
    use(server, "view-only: true")
    server.vm("vm1")
    server.open("vm1")
    row = only_row(server.gate("list --json").says())
    assert (row["state"], row["limits"], row["take_over"]) == ("busy", ["view-only"], True)


def test_a_vm_that_is_closed_for_the_person_is_not_just_busy(server: Server) -> None:
    """Who waited for the seat would find that they may not have it."""
    server.use_map(
        f"delegates: [{os.getuid()}]\n"
        "vms: {vm1: {socket: '{dir}/vm1', allow: ["
        f"{{user: anne}}, {{user: bob, starts: {TOMORROW}}}]}}}}\n"
    )
    server.vm("vm1")
    server.other().say(open_request("anne"))
    bob = server.other().speaker()
    bob.send({"v": 1, "op": "list", "as": "bob"})
    row = only_row(bob.receive())
    bob.close()
    assert (row["state"], row["busy_by"], row["take_over"]) == ("closed", "anne", False)
