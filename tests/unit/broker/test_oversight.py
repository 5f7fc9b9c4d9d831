"""What an admin sees and may end, and what others may."""

import contextlib
import grp
import os
import pwd
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.broker import ask, ask_rows
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import MAX_REASON, number
from tests.unit.broker.server import (
    DISPLAY,
    PATIENCE,
    OtherConnection,
    Server,
    running_server,
    wait_until,
)

#: The uid of the ordinary user: nobody's if we are root; else None, for our own.
NOBODY = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
OUR_GROUP = grp.getgrgid(os.getgid()).gr_name
SESSION = {"id", "user", "vm", "since", "from", "via", "channels", "until"}
SESSION |= {"bytes_up", "bytes_down", "rate_up", "rate_down"}
MAP = """\
delegates: [{user}]
vms:
  vm1:
    socket: {directory}/vm1
    seat: shared
    allow:
      - user: [{user}, nobody, charlie, dora]
  vm2:
    socket: {directory}/vm2
    allow:
      - {{user: charlie, when: 00:00-24:00, ends: 2100-01-01}}
"""


@contextlib.contextmanager
def a_server(group: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)  # for the other user
        server = Server(Path(directory))
        server.map.write_text(MAP.format(user=server.user, directory=directory))
        try:
            server.start("--admin-group", group)
            yield server
        finally:
            server.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server whose admin we are: as root, or by our group."""
    with a_server(OUR_GROUP) as server:
        yield server


@pytest.fixture
def strict_server() -> Iterator[Server]:
    """A server whose only admin is root."""
    with a_server("no-such-group") as server:
        yield server


def opened(connection: OtherConnection, vm: str, name: str = "") -> str:
    """Open a session over `connection`, for the person `name` if given; its id."""
    about = {"op": "open", "vm": vm, "from": "192.0.2.7 5 192.0.2.1 22"}
    ready = connection.say({**about, **({"as": name} if name else {})})
    assert ready["event"] == "ready", ready
    return str(ready["session"])


def sessions(server: Server) -> list[dict[str, Any]]:
    return ask_rows(str(server.directory), "sessions")


def kick(server: Server, **which: object) -> list[str]:
    about = {"session": "", "user": "", "vm": "", **which}
    rows = ask_rows(str(server.directory), "kick", key="kicked", **about)
    assert all(set(row) == {"id", "user", "vm"} for row in rows)
    return [str(row["id"]) for row in rows]


def status(server: Server) -> dict[str, Any]:
    found = ask(str(server.directory), "status")["status"]
    assert isinstance(found, dict)
    return found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: b") T " in Path(f"/proc/{pid}/stat").read_bytes(), "the process to stop")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_session_is_listed_with_all_its_details(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    server.channel(vm, DISPLAY)
    with stopped(*server.relay_processes()):  # so that one report counts what both sides send
        viewer.sendall(b"12345")
        far.sendall(b"x" * 1000)
    assert len(viewer.recv(1000)) == 1000
    (row,) = wait_until(lambda: [x for x in sessions(server) if x["bytes_up"]], "the counts")
    assert row["id"] == server.audit("open")[0]["session"]
    assert (row["user"], row["vm"], row["from"]) == (server.user, "vm1", "192.0.2.7")
    assert (row["channels"], row["until"], row["via"]) == (2, "", "")
    assert (row["bytes_up"], row["bytes_down"]) == (5, 1000 + 2)
    assert 0 < row["rate_up"] < row["rate_down"]
    age = datetime.now(UTC) - datetime.fromisoformat(row["since"])
    assert -1 < age.total_seconds() < 10
    assert set(row) == SESSION


def test_session_is_listed_with_its_end_and_account(server: Server) -> None:
    server.vm("vm2")
    opened(server.other(), "vm2", "charlie")
    (row,) = sessions(server)
    assert row["until"].startswith("2100-01-0")
    assert (row["user"], row["via"]) == ("charlie", server.user)


def test_list_is_empty_without_sessions(server: Server) -> None:
    assert sessions(server) == []


def test_person_of_a_shared_account_sees_only_their_own_sessions(server: Server) -> None:
    """Even if the account itself may see everybody's."""
    server.vm("vm1")
    connections = server.other(), server.other()
    charlies, _ = (
        opened(connections[n], "vm1", name) for n, name in enumerate(("charlie", "dora"))
    )
    answer = server.other().say({"op": "sessions", "as": "charlie"})
    rows = answer["sessions"]
    assert isinstance(rows, list)
    assert [row["id"] for row in rows] == [charlies]
    assert len(sessions(server)) == 2


@pytest.mark.parametrize("operation", ["kick", "status", "map"])
def test_person_of_a_shared_account_may_not_kick_or_ask_for_status_or_map(
    server: Server, operation: str
) -> None:
    answer = server.other().say({"op": operation, "as": "charlie", "user": "dora"})
    assert (answer["event"], answer["code"]) == ("refused", 77)


def test_ordinary_user_sees_only_their_own_sessions(strict_server: Server) -> None:
    strict_server.vm("vm1")
    opened(strict_server.other(), "vm1", "dora")
    connection = strict_server.other(NOBODY)
    mine = opened(connection, "vm1")
    rows = strict_server.other(NOBODY).say({"op": "sessions"})["sessions"]
    assert isinstance(rows, list)
    assert [row["id"] for row in rows] == [mine]


@pytest.mark.parametrize("operation", ["kick", "status", "map"])
def test_ordinary_user_may_not_kick_or_ask_for_status_or_map(
    strict_server: Server, operation: str
) -> None:
    strict_server.vm("vm1")
    opened(strict_server.other(), "vm1", "dora")
    answer = strict_server.other(NOBODY).say({"op": operation, "user": "dora"})
    assert (answer["event"], answer["code"]) == ("refused", 77)
    assert answer["reason"] == "this is for the admins of this server"
    assert answer["hint"] == "they are root and the members of the group no-such-group"
    assert strict_server.audit("kick") == []
    assert strict_server.audit("session-end") == []
    line = wait_until(lambda: strict_server.audit("refused"), "the log line")[0]
    assert line["uid"] == (NOBODY or os.getuid())


def test_kick_ends_the_session_and_says_why(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    session = server.audit("open")[0]["session"]
    started = time.monotonic()
    assert kick(server, session=session, reason="maintenance at noon") == [session]
    assert far.recv(1) == b""
    said = gate.says()
    assert time.monotonic() - started < PATIENCE * 1
    assert (said["event"], said["code"]) == ("end", 77)
    assert said["reason"] == "your session at 'vm1' was ended by the admin: maintenance at noon"
    assert gate.exit_code() == 77
    (line,) = server.audit("kick")
    assert (line["session"], line["user"], line["vm"]) == (session, server.user, "vm1")
    assert (line["by"], line["by_uid"]) == (server.user, os.getuid())
    assert line["reason"] == "maintenance at noon"
    (end,) = wait_until(lambda: server.audit("session-end"), "the end")
    assert end["reason"] == said["reason"]
    assert sessions(server) == []


def test_kick_without_a_reason_hints_to_ask_the_admin(server: Server) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    kick(server, vm="vm1")
    said = gate.says()
    assert said["reason"] == "your session at 'vm1' was ended by the admin"
    assert said["hint"] == "ask the admin why"
    assert "reason" not in server.audit("kick")[0]


@pytest.mark.parametrize(
    "reason",
    ["x" * 10_000, "a\nb\r\n\tc", "\x1b]0;owned\x07\x9b2J\u202e\u2028\x00", "\ud800", "  \n "],
)
def test_reason_of_a_kick_becomes_one_printable_line(server: Server, reason: str) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    kick(server, vm="vm1", reason=reason)
    said = str(gate.says()["reason"])
    assert said.isprintable()
    assert len(said) < MAX_REASON + 60
    assert said.startswith("your session at 'vm1' was ended by the admin")
    assert not said.endswith(": ")


@pytest.mark.parametrize(
    ("which", "ended"),
    [
        ({"user": "charlie"}, {"c1", "c2"}),
        ({"vm": "vm1"}, {"c1", "d1"}),
        ({"user": "charlie", "vm": "vm1"}, {"c1"}),
        ({"user": "dora", "vm": "vm2"}, set()),
        ({"session": "00000000"}, set()),
        ({"user": "Charlie"}, set()),
        ({"user": "\x1b[2J" * 1000}, set()),
    ],
)
def test_kick_ends_only_sessions_that_match_every_given_value(
    server: Server, which: dict[str, object], ended: set[str]
) -> None:
    server.vm("vm1")
    server.vm("vm2")
    places = {"c1": ("vm1", "charlie"), "c2": ("vm2", "charlie"), "d1": ("vm1", "dora")}
    ids = {key: opened(server.other(), *place) for key, place in places.items()}
    assert set(kick(server, **which)) == {ids[key] for key in ended}
    assert {row["id"] for row in sessions(server)} == {ids[key] for key in set(ids) - ended}


@pytest.mark.parametrize(
    ("which", "code"),
    [({}, 64), ({"session": "../x"}, 70), ({"vm": "-x"}, 70), ({"reason": 1, "vm": "vm1"}, 70)],
)
def test_kick_without_or_with_malformed_criteria_is_refused(
    server: Server, which: dict[str, object], code: int
) -> None:
    server.vm("vm1")
    server.open("vm1")
    with pytest.raises(SpicetunnelError) as raised:
        kick(server, **which)
    assert raised.value.exit_code == code
    assert len(sessions(server)) == 1


def test_session_whose_gate_has_not_come_back_is_listed_and_kicked(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    before = sessions(server)[0]
    gate.process.send_signal(signal.SIGSTOP)
    server.kill_broker()
    server.start("--admin-group", OUR_GROUP)
    (row,) = sessions(server)
    same = ("id", "user", "vm", "since", "from", "channels")
    assert [row[key] for key in same] == [before[key] for key in same]
    assert set(row) == SESSION
    assert status(server)["orphans"] == 1
    assert kick(server, session=row["id"], reason="enough") == [row["id"]]
    assert sessions(server) == []
    gate.process.send_signal(signal.SIGCONT)
    assert str(gate.says()["reason"]).endswith("was ended by the admin: enough")
    assert far.recv(1) == b""
    assert server.audit("kick")[0]["by"] == server.user


def test_status_of_a_healthy_server(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    found = status(server)
    assert (found["sessions"], found["channels"], found["orphans"]) == (1, 1, 0)
    assert found["vms"] == {"running": 1, "off": 1, "unreachable": 0, "unreachable_names": []}
    about = found["map"]
    assert about["file"] == str(server.map)
    assert (about["ok"], about["error"], about["errors"]) == (True, "", 0)
    assert (about["vms"], about["grants"]) == (2, 2)
    assert 0 <= about["age"] < 60
    sockets = [str(server.directory / name) for name in ("control.sock", "tunnel.sock")]
    assert found["sockets"] == [{"path": path, "ok": True} for path in sockets]
    assert found["version"] == server.audit("start")[0]["version"]
    for moment in (found["started"], about["loaded"]):
        age = datetime.now(UTC) - datetime.fromisoformat(moment)
        assert -1 < age.total_seconds() < 60
    assert 0 <= found["uptime"] < 60


def test_status_reports_a_refused_map_until_it_is_corrected(server: Server) -> None:
    good = server.map.read_text()
    loaded = status(server)["map"]["loaded"]
    server.map.write_text(good + "  vm3:\n    colour: blue\n    sokket: /x\n")
    wait_until(lambda: not status(server)["map"]["ok"], "the refusal")
    about = status(server)["map"]
    assert about["error"].startswith(f"{server.map}:")
    assert about["errors"] >= 2
    assert (about["vms"], about["loaded"]) == (2, loaded)
    server.map.unlink()
    wait_until(lambda: "cannot be read" in status(server)["map"]["error"], "the other refusal")
    assert status(server)["map"]["age"] is None
    server.map.write_text(good)
    wait_until(lambda: status(server)["map"]["ok"], "the good map")
    assert status(server)["map"]["error"] == ""


def test_status_names_the_first_100_unreachable_vms(server: Server) -> None:
    """Their paths lead through a file: a missing permission would not stop root."""
    text = "vms:\n" + "".join(f"  vm{n}:\n    socket: {server.map}/vm{n}\n" for n in range(150))
    server.map.write_text(text)
    wait_until(lambda: status(server)["map"]["vms"] == 150, "the map")
    vms = status(server)["vms"]
    assert (vms["running"], vms["off"], vms["unreachable"]) == (0, 0, 150)
    assert vms["unreachable_names"] == sorted(f"vm{n}" for n in range(150))[:100]


def test_status_reports_a_removed_socket(server: Server) -> None:
    (server.directory / "tunnel.sock").unlink()
    assert [each["ok"] for each in status(server)["sockets"]] == [True, False]


def test_status_reports_a_relay_that_is_away(server: Server) -> None:
    assert status(server)["relay"] == {"ok": True, "error": ""}
    assert list((server.relay_dir / "sessions").iterdir()) == []  # what it tried out is gone
    server.kill_relay()
    assert status(server)["relay"]["ok"] is False
    assert "relay does not answer" in status(server)["relay"]["error"]
    server.start_relay()
    wait_until(lambda: status(server)["relay"]["ok"], "the relay")


def test_session_with_an_overlong_address_is_listed_without_it(server: Server) -> None:
    """The user controls what their gate reports, so its length must not break the list."""
    server.vm("vm1")
    with server.speaker() as fake_gate:
        claimed = "fe80::1%" + "é" * 20_000
        fake_gate.sock.send(f'{{"v":1,"op":"open","vm":"vm1","from":"{claimed}"}}'.encode())
        assert fake_gate.receive()["event"] == "ready"
        (row,) = ask_rows(str(server.directory), "sessions")
        assert row["from"] == ""


def test_session_with_huge_counts_is_listed() -> None:
    lie = """
from spicetunnel.relay import session
tell = session.Session._tell
def lie(self, message):
    if message["event"] == "usage":
        message = {"event": "usage", "channels": {key: [2**63 - 1] * 2 for key in ("1", "2")}}
    tell(self, message)
session.Session._tell = lie
"""
    with running_server(relay_patch=lie) as server:
        vm = server.vm("vm1")
        server.open("vm1")
        server.channel(vm)
        server.channel(vm, DISPLAY)
        directory = str(server.directory)
        wait_until(lambda: ask_rows(directory, "sessions")[0]["bytes_up"], "the counts")
        (row,) = ask_rows(directory, "sessions")
        for key in ("bytes_up", "bytes_down", "rate_up", "rate_down"):
            assert number(row, key) > 2**40, key


def test_admin_gets_the_map_in_force_text_for_text(server: Server) -> None:
    """In pieces: a packet holds 64 KiB, and each of these characters takes 12 bytes of it."""
    title = "\U0001d400" * 80
    vms = "".join(f"  v{n}: {{socket: /run/v{n}, title: {title}}}\n" for n in range(300))
    parts = server.directory / "vms.d"
    parts.mkdir(0o755)
    (parts / "many.yaml").write_text(f"vms:\n{vms}")
    (parts / "none.yaml").write_text("# nothing yet\nvms: {}\n")
    server.use_map(server.map.read_text())
    good = {str(server.map): server.map.read_text()}
    good |= {str(file): file.read_text() for file in parts.iterdir()}
    server.map.write_text("vms: not a good map")
    rows = ask_rows(str(server.directory), "map")
    told: dict[str, str] = {}
    for row in rows:
        name = str(row["file"])
        told[name] = told.get(name, "") + str(row["text"])
    assert len(rows) > 5
    assert told == good
    assert next(iter(told)) == str(server.map), "the main file is the first"
