"""Temporary grants at a running broker: given, taken back, over by themselves, kept."""

import contextlib
import grp
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spicetunnel.admin.broker import ask_rows
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import Message, decode, encode
from spicetunnel.policy.temporary import TemporaryGrant, read_grants, written
from tests.unit.broker.server import Server, running_server, wait_until

NOBODY = 65534


@pytest.fixture
def ours() -> Iterator[Server]:
    """A server in which we are an admin and the map gives nobody anything."""
    group = grp.getgrgid(os.getgid()).gr_name
    with running_server("--admin-group", group, user="nobody-else") as server:
        yield server


def again(server: Server) -> None:
    server.kill_broker()
    server.start("--admin-group", grp.getgrgid(os.getgid()).gr_name)


def ask(server: Server, operation: str, **about: object) -> Message:
    """The broker's first answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
        broker.settimeout(10)
        broker.connect(str(server.directory / "control.sock"))
        fdpass.send(broker, encode({"v": 1, "op": operation, **about}))
        packet, _ = fdpass.receive(broker)
    return decode(packet)


def grant(server: Server, seconds: int = 3600, **more: object) -> dict[str, Any]:
    about = {"user": server.user, "vm": "vm1", "reason": "the printer"}
    answer = ask(server, "grant", **{**about, "seconds": seconds, **more})
    assert answer["event"] == "granted", answer
    given = answer["grant"]
    assert isinstance(given, dict)
    return given


def kept(server: Server) -> list[str]:
    """The ids on disk."""
    return [each.id for each in read_grants((server.state / "grants.json").read_bytes())]


def refused(server: Server, vm: str = "vm1") -> dict[str, object]:
    answer = server.gate(f"open --json {vm}").says()
    assert answer["event"] == "refused", answer
    return answer


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Root lowers itself for the time; the kernel tells the broker."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_granted_opens_and_tells_until_when(ours: Server) -> None:
    ours.vm("vm1")
    assert refused(ours)["code"] == 77
    before = datetime.now(UTC)
    given = grant(ours)
    until = datetime.fromisoformat(given["until"])
    assert timedelta(0, 3598) < until - before <= timedelta(0, 3600)
    assert until - datetime.fromisoformat(given["since"]) == timedelta(0, 3600)
    gate = ours.gate("open --json vm1")
    ready = gate.says()
    assert ready["event"] == "ready"
    assert datetime.fromisoformat(str(ready["until"])) == until
    rows = ours.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    (row,) = rows
    assert (row["name"], row["title"], row["state"]) == ("vm1", "the vm1", "busy")
    assert datetime.fromisoformat(row["until"]) == until
    assert (
        ours.audit("open")[-1]["grant"]
        == TemporaryGrant(**{**given, "since": before, "until": until}).source
    )


def test_the_log_names_who_gave_what_to_whom(ours: Server) -> None:
    given = grant(ours, user="anne", vm="vm2")
    ask(ours, "revoke", grant=given["id"])
    (line,), (back,) = ours.audit("grant"), ours.audit("revoke")
    for each in (line, back):
        assert {key: each[key] for key in ("grant", "user", "vm", "by", "uid", "reason")} == {
            "grant": given["id"],
            "user": "anne",
            "vm": "vm2",
            "by": ours.user,
            "uid": os.getuid(),
            "reason": "the printer",
        }
        assert datetime.fromisoformat(str(each["until"])) == datetime.fromisoformat(given["until"])


def test_all_are_listed(ours: Server) -> None:
    assert ask(ours, "grants") == {"event": "grants", "grants": [], "more": False}
    both = [grant(ours), grant(ours, user="anne", reason="")]
    assert ask(ours, "grants") == {"event": "grants", "grants": both, "more": False}
    assert set(both[0]) == {"id", "user", "vm", "until", "since", "by", "reason"}


def test_revoked_ends_the_session_it_carried(ours: Server) -> None:
    vm = ours.vm("vm1")
    given = grant(ours)
    gate = ours.open("vm1")
    _, far = ours.channel(vm)
    began = time.monotonic()
    assert ask(ours, "revoke", grant=given["id"]) == {"event": "revoked", "grants": [given["id"]]}
    assert far.recv(1) == b""
    assert time.monotonic() - began < 1
    end = gate.says()
    assert (end["event"], end["code"]) == ("end", 77)
    assert end["reason"] == "you may no longer use 'vm1': no grant names you"
    assert end["hint"] == "list the VMs you may use, or ask the admin"
    assert refused(ours)["reason"] == "you may not use 'vm1'"
    assert kept(ours) == []


def test_a_session_that_another_grant_carries_too_goes_on(ours: Server) -> None:
    vm = ours.vm("vm1")
    first, second = grant(ours, 3600), grant(ours, 7200)
    ours.open("vm1")
    viewer, far = ours.channel(vm)
    ask(ours, "revoke", grant=first["id"])
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"
    ask(ours, "revoke", grant=second["id"])
    assert far.recv(1) == b""


def test_a_user_at_a_vm_is_revoked_whole(ours: Server) -> None:
    first, other, second = grant(ours), grant(ours, vm="vm2"), grant(ours)
    answer = ask(ours, "revoke", user=ours.user, vm="vm1")
    assert answer == {"event": "revoked", "grants": [first["id"], second["id"]]}
    assert kept(ours) == [other["id"]]


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"grant": "00000000"}, "no temporary grant is '00000000'"),
        ({"grant": "\x1b"}, "no temporary grant is '\\x1b'"),
        ({"user": "eve", "vm": "vm1"}, "no temporary grant is 'eve' 'vm1'"),
        ({}, "nothing says what to revoke"),
    ],
)
def test_there_may_be_none_to_revoke(ours: Server, about: dict[str, str], reason: str) -> None:
    grant(ours)
    answer = ask(ours, "revoke", **about)
    assert (answer["event"], answer["code"], answer["reason"]) == ("refused", 64, reason)
    assert len(kept(ours)) == 1


def test_its_end_ends_the_session_and_it_is_forgotten(ours: Server) -> None:
    vm = ours.vm("vm1")
    given = grant(ours, 2)
    gate = ours.open("vm1")
    _, far = ours.channel(vm)
    assert far.recv(1) == b""
    late = datetime.now(UTC) - datetime.fromisoformat(given["until"])
    assert timedelta(0) <= late < timedelta(seconds=1)
    end = gate.says()
    assert end["reason"] == "you may no longer use 'vm1': your window is over"
    assert end["hint"] == "your time there is over; ask the admin"
    (line,) = wait_until(lambda: ours.audit("grant-end"), "it to be forgotten")
    assert (line["grant"], line["reason"]) == (given["id"], "expired")
    assert refused(ours)["reason"] == "you may not use 'vm1'"
    assert kept(ours) == []
    assert ask(ours, "grants")["grants"] == []


def test_one_that_the_map_carries_no_more_ends_soon_after_its_end(ours: Server) -> None:
    """The session's own clock was set by the map's grant, which had no end."""
    ours.write_map(ours.user, "vm1")
    wait_until(lambda: len(ours.audit("map")) == 2, "the map")
    vm = ours.vm("vm1")
    ours.open("vm1")
    _, far = ours.channel(vm)
    given = grant(ours, 3)
    ours.write_map("nobody-else", "vm1")
    assert far.recv(1) == b""
    late = datetime.now(UTC) - datetime.fromisoformat(given["until"])
    assert timedelta(0) <= late < timedelta(seconds=2)


def test_a_longer_one_carries_the_session_on(ours: Server) -> None:
    vm = ours.vm("vm1")
    first = grant(ours, 2)
    ours.open("vm1")
    viewer, far = ours.channel(vm)
    grant(ours, 3600)
    wait_until(lambda: ours.audit("grant-end"), "the first one's end")
    assert ours.audit("grant-end")[0]["grant"] == first["id"]
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"


def test_the_maps_own_grant_says_how_much(ours: Server) -> None:
    ours.write_map(ours.user, "vm1", grant=", view-only: true")
    wait_until(lambda: len(ours.audit("map")) == 2, "the map")
    ours.vm("vm1")
    grant(ours)
    ours.open("vm1")
    line = ours.audit("open")[-1]
    assert line["grant"] == f"{ours.map}:7"
    assert "inputs" in str(line["denied"])
    assert "until" not in line


def test_next_broker_knows_them(ours: Server) -> None:
    vm = ours.vm("vm1")
    given, short = grant(ours), grant(ours, 1, user="anne")
    ours.open("vm1")
    viewer, far = ours.channel(vm)
    ours.kill_broker()
    time.sleep(1)
    again(ours)
    wait_until(lambda: ours.audit("resume"), "the session to be handed over")
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"
    assert ask(ours, "grants")["grants"] == [given]
    assert [line["grant"] for line in ours.audit("grant-end")] == [short["id"]]
    ask(ours, "revoke", grant=given["id"])
    assert far.recv(1) == b""


def test_the_maps_reload_keeps_them(ours: Server) -> None:
    ours.vm("vm1")
    grant(ours)
    ours.write_map("nobody-else", "vm2", "vm1")
    wait_until(lambda: len(ours.audit("map")) == 2, "the map")
    ours.open("vm1")


def test_without_its_vm_it_lies_dormant(ours: Server) -> None:
    vm = ours.vm("vm1")
    grant(ours)
    ours.open("vm1")
    _, far = ours.channel(vm)
    ours.write_map("nobody-else", "vm2")
    assert far.recv(1) == b""
    assert refused(ours)["reason"] == "you may not use 'vm1'"
    assert ours.gate("list --json").says()["vms"] == []
    ours.write_map("nobody-else", "vm2", "vm1")
    wait_until(lambda: len(ours.audit("map")) == 3, "the map")
    other = ours.other()
    assert other.gate("open --json vm1")["event"] == "ready"


def test_file_is_the_brokers_alone(ours: Server) -> None:
    given = grant(ours)
    found = (ours.state / "grants.json").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert kept(ours) == [given["id"]]
    assert {path.name for path in ours.state.iterdir()} == {
        "grants.json",
        "last-good-map.json",
        "lock",
    }


def test_the_map_stays_as_it_is(ours: Server) -> None:
    before = ours.map.read_bytes()
    grant(ours)
    assert ours.map.read_bytes() == before
    assert len(ours.audit("map")) == 1


def bad_json(server: Server) -> None:
    (server.state / "grants.json").write_text('{"v":1,"grants":[{}]}')


def writable_by_others(server: Server) -> None:
    grant(server)
    (server.state / "grants.json").chmod(0o666)


def link_elsewhere(server: Server) -> None:
    (server.state / "grants.json").symlink_to("/nowhere")


def too_large(server: Server) -> None:
    (server.state / "grants.json").write_bytes(b" " * (4 * 1024 * 1024 + 1))


def pipe(server: Server) -> None:
    os.mkfifo(server.state / "grants.json")


@pytest.mark.parametrize("spoil", [bad_json, writable_by_others, link_elsewhere, too_large, pipe])
def test_bad_file_gives_nothing_is_kept_aside_and_said(ours: Server, spoil: Any) -> None:
    spoil(ours)
    again(ours)
    (fault,) = ours.audit("fault")
    assert str(fault["reason"]).startswith("no temporary grant is in force: ")
    assert fault["kept"] == str(ours.state / "grants.json.bad")
    assert os.path.lexists(ours.state / "grants.json.bad")
    assert ask(ours, "grants")["grants"] == []
    ours.vm("vm1")
    assert refused(ours)["code"] == 77
    given = grant(ours)
    assert kept(ours) == [given["id"]]
    ours.open("vm1")


def test_one_from_the_future_is_left_out(ours: Server) -> None:
    """The clock was a year ahead when it was given."""
    then = datetime.now(UTC) + timedelta(days=365)
    end = then + timedelta(hours=1)
    about = {"id": "00000001", "user": ours.user, "vm": "vm1", "by": "root"}
    late = TemporaryGrant(**about, since=then, until=end)
    (ours.state / "grants.json").write_bytes(written([late]))
    (ours.state / "grants.json").chmod(0o600)
    again(ours)
    assert ask(ours, "grants")["grants"] == []
    assert ours.audit("grant-end")[0]["reason"] == "the clock has been set back"


def missing(server: Server) -> str:
    shutil.rmtree(server.state)
    return "no such file or directory"


def others_may_write(server: Server) -> str:
    server.state.chmod(0o777)
    return "writable by no one else"


def no_directory(server: Server) -> str:
    shutil.rmtree(server.state)
    server.state.write_text("")
    return "not a directory"


def anothers(server: Server) -> str:
    import fcntl

    fd = os.open(server.state / "lock", os.O_RDWR)
    server.at_the_end(lambda: os.close(fd))
    fcntl.flock(fd, fcntl.LOCK_EX)
    return "another process"


@pytest.mark.parametrize("spoil", [missing, others_may_write, no_directory, anothers])
def test_without_a_directory_for_it_grant_is_refused_and_the_rest_goes_on(
    server: Server, spoil: Any
) -> None:
    server.stop_broker()
    why = spoil(server)
    server.start("--admin-group", grp.getgrgid(os.getgid()).gr_name)
    (line,) = server.audit("grants")
    assert line["decision"] == "deny"
    assert why in str(line["reason"])
    answer = ask(server, "grant", user="anne", vm="vm1", seconds=60, reason="")
    assert (answer["event"], answer["code"]) == ("refused", 73)
    assert why in str(answer["reason"])
    assert answer["hint"]
    assert ask(server, "grants")["grants"] == []
    assert server.audit("grant") == []
    server.vm("vm1")
    server.open("vm1")


def full_disk(server: Server) -> None:
    """What is written first cannot be: a directory is in its place."""
    (server.state / ".grants.json.new").mkdir()


def test_what_cannot_be_kept_is_not_given(ours: Server) -> None:
    full_disk(ours)
    answer = ask(ours, "grant", user=ours.user, vm="vm1", seconds=60, reason="")
    assert (answer["event"], answer["code"]) == ("refused", 73)
    ours.vm("vm1")
    assert refused(ours)["code"] == 77


def test_revoked_is_revoked_even_if_the_disk_is_full(ours: Server) -> None:
    vm = ours.vm("vm1")
    given = grant(ours)
    ours.open("vm1")
    _, far = ours.channel(vm)
    full_disk(ours)
    answer = ask(ours, "revoke", grant=given["id"])
    assert (answer["event"], answer["code"]) == ("refused", 73)
    assert str(answer["reason"]).startswith("revoked, but ")
    assert far.recv(1) == b""
    assert [line["grant"] for line in ours.audit("revoke")] == [given["id"]]
    again(ours)
    assert ask(ours, "grants")["grants"] == []


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"user": "a:b"}, "the user must be a user's name, not 'a:b'"),
        ({"user": ""}, "the user must be a user's name, not ''"),
        ({"user": "-anne"}, "the user must be a user's name, not '-anne'"),
        ({"user": "\ud800"}, "the user must be a user's name, not '\\ud800'"),
        ({"vm": "vm9"}, "the map has no vm 'vm9'"),
        ({"vm": "\x1b[2J"}, "the map has no vm '\\x1b[2J'"),
        ({"seconds": 0}, "a temporary grant lasts from a second to 30 days"),
        ({"seconds": 30 * 86400 + 1}, "a temporary grant lasts from a second to 30 days"),
        ({"seconds": 2**63 - 1}, "a temporary grant lasts from a second to 30 days"),
        (
            {"reason": "two\nlines"},
            "the reason must be printable text of 200 characters at most, not 'two\\nlines'",
        ),
        ({"reason": "x" * 201}, None),
    ],
)
def test_what_makes_no_sense_is_refused(
    ours: Server, about: dict[str, object], reason: str | None
) -> None:
    usual = {"user": "anne", "vm": "vm1", "seconds": 60, "reason": ""}
    answer = ask(ours, "grant", **(usual | about))
    assert (answer["event"], answer["code"]) == ("refused", 64)
    assert reason in {None, answer["reason"]}
    assert not (ours.state / "grants.json").exists()


@pytest.mark.parametrize(
    "about", [{"seconds": "60"}, {"seconds": 1.5}, {"seconds": True}, {"user": None}, {"vm": 1}]
)
def test_what_breaks_the_protocol_is_refused(ours: Server, about: dict[str, object]) -> None:
    usual = {"user": "anne", "vm": "vm1", "seconds": 60, "reason": ""}
    assert ask(ours, "grant", **(usual | about))["code"] == 70


def test_an_ordinary_user_is_refused(server: Server) -> None:
    server.directory.chmod(0o755)
    given = "00000000"
    with somebody_else():
        for about in (
            {"op": "grant", "user": server.user, "vm": "vm1", "seconds": 60, "reason": ""},
            {"op": "revoke", "grant": given},
            {"op": "grants"},
        ):
            answer = ask(server, str(about.pop("op")), **about)
            assert (answer["event"], answer["code"]) == ("refused", 77)
            assert answer["reason"] == "this is for the admins of this server"
    assert server.audit("grant") == []
    assert not (server.state / "grants.json").exists()


def test_long_ones_fill_more_than_one_packet(ours: Server) -> None:
    """What one line may hold, times a hundred, is over 64 KiB."""
    now = datetime.now(UTC).replace(microsecond=0)
    about: dict[str, Any] = {
        "since": now,
        "until": now + timedelta(hours=1),
        "by": "\U0001d400" * 9,
    }
    about |= {"user": "\U0001d400" * 200, "vm": "vm1", "reason": "\U0001d400" * 200}
    many = [TemporaryGrant(id=f"{number:08x}", **about) for number in range(150)]
    (ours.state / "grants.json").write_bytes(written(many))
    (ours.state / "grants.json").chmod(0o600)
    again(ours)
    rows = ask_rows(str(ours.directory), "grants")
    assert [row["id"] for row in rows] == [each.id for each in many]
