"""Temporary grants of a running broker: granted, revoked, expired, kept over a restart."""

import contextlib
import grp
import os
import pwd
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.broker import ask_rows
from spicetunnel.common import fdpass
from spicetunnel.common.protocol import Message, decode, encode
from spicetunnel.policy.temporary import TemporaryGrant, read_grants, written
from tests.unit.broker.server import PATIENCE, Server, running_server, wait_until

NOBODY = 65534
ANOTHER = pwd.getpwuid(NOBODY).pw_name  # an account that every machine has


@pytest.fixture
def admin_server() -> Iterator[Server]:
    """A server whose admin we are, and whose map grants nobody anything."""
    group = grp.getgrgid(os.getgid()).gr_name
    with running_server("--admin-group", group, user="nobody-else") as server:
        yield server


MOVED_CLOCK = """
from datetime import UTC, datetime, timedelta
from pathlib import Path
from spicetunnel.broker.rules import Rules
ahead = Path({file!r})
Rules.__init__.__defaults__ = (
    lambda: datetime.now(UTC) + timedelta(seconds=float(ahead.read_text())),
)
"""


class Clock:
    """The broker's clock, which the test can set forward."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._ahead = timedelta()
        self._write()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def set_forward_to(self, moment: datetime) -> None:
        self._ahead = moment - datetime.now(UTC)
        self._write()

    def _write(self) -> None:
        """In one step: the broker may read it at any time."""
        new = self.file.with_suffix(".new")
        new.write_text(str(self._ahead.total_seconds()))
        new.rename(self.file)


@pytest.fixture
def clock(admin_server: Server) -> Clock:
    clock = Clock(admin_server.directory / "clock")
    group = grp.getgrgid(os.getgid()).gr_name
    admin_server.restart_patched(MOVED_CLOCK.format(file=str(clock.file)), "--admin-group", group)
    return clock


def end_of(given: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(given["until"])


def restart(server: Server) -> None:
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


def ids_on_disk(server: Server) -> list[str]:
    """The ids of the grants in the file."""
    return [each.id for each in read_grants((server.state / "grants.json").read_bytes())]


def refused(server: Server, vm: str = "vm1") -> dict[str, object]:
    """Try to open the VM; the refusal."""
    answer = server.gate(f"open --json {vm}").says()
    assert answer["event"] == "refused", answer
    return answer


@contextlib.contextmanager
def as_ordinary_user() -> Iterator[None]:
    """If we are root, act as user nobody meanwhile: the broker sees that uid."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_granted_vm_opens_and_ready_and_list_say_until_when(admin_server: Server) -> None:
    admin_server.vm("vm1")
    assert refused(admin_server)["code"] == 77
    before = datetime.now(UTC)
    given = grant(admin_server)
    since, until = datetime.fromisoformat(given["since"]), end_of(given)
    assert before.replace(microsecond=0) <= since <= datetime.now(UTC)
    assert until - since == timedelta(0, 3600)
    gate = admin_server.gate("open --json vm1")
    ready = gate.says()
    assert ready["event"] == "ready"
    assert datetime.fromisoformat(str(ready["until"])) == until
    rows = admin_server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    (row,) = rows
    assert (row["name"], row["title"], row["state"]) == ("vm1", "the vm1", "busy")
    assert datetime.fromisoformat(row["until"]) == until
    assert (
        admin_server.audit("open")[-1]["grant"]
        == TemporaryGrant(**{**given, "since": before, "until": until}).source
    )


def test_log_says_who_granted_and_revoked_what_for_whom(admin_server: Server) -> None:
    given = grant(admin_server, user=ANOTHER, vm="vm2")
    ask(admin_server, "revoke", grant=given["id"])
    (line,), (back,) = admin_server.audit("grant"), admin_server.audit("revoke")
    for each in (line, back):
        assert {key: each[key] for key in ("grant", "user", "vm", "by", "uid", "reason")} == {
            "grant": given["id"],
            "user": ANOTHER,
            "vm": "vm2",
            "by": admin_server.user,
            "uid": os.getuid(),
            "reason": "the printer",
        }
        assert datetime.fromisoformat(str(each["until"])) == datetime.fromisoformat(given["until"])


def test_all_grants_are_listed(admin_server: Server) -> None:
    assert ask(admin_server, "grants") == {"event": "grants", "grants": [], "more": False}
    both = [grant(admin_server), grant(admin_server, user=ANOTHER, reason="")]
    assert ask(admin_server, "grants") == {"event": "grants", "grants": both, "more": False}
    assert set(both[0]) == {"id", "user", "vm", "until", "since", "by", "reason"}


def test_revoke_ends_the_session_of_the_grant(admin_server: Server) -> None:
    vm = admin_server.vm("vm1")
    given = grant(admin_server)
    gate = admin_server.open("vm1")
    _, far = admin_server.channel(vm)
    began = time.monotonic()
    assert ask(admin_server, "revoke", grant=given["id"]) == {
        "event": "revoked",
        "grants": [given["id"]],
    }
    assert far.recv(1) == b""
    assert time.monotonic() - began < PATIENCE * 1
    end = gate.says()
    assert (end["event"], end["code"]) == ("end", 77)
    assert end["reason"] == "you may no longer use 'vm1': no grant names you"
    assert end["hint"] == "list the VMs you may use, or ask the admin"
    assert refused(admin_server)["reason"] == "you may not use 'vm1'"
    assert ids_on_disk(admin_server) == []


def test_session_goes_on_if_another_grant_still_allows_it(admin_server: Server) -> None:
    vm = admin_server.vm("vm1")
    first, second = grant(admin_server, 3600), grant(admin_server, 7200)
    admin_server.open("vm1")
    viewer, far = admin_server.channel(vm)
    ask(admin_server, "revoke", grant=first["id"])
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"
    ask(admin_server, "revoke", grant=second["id"])
    assert far.recv(1) == b""


def test_revoke_of_a_user_at_a_vm_revokes_all_their_grants_there(admin_server: Server) -> None:
    first, other, second = grant(admin_server), grant(admin_server, vm="vm2"), grant(admin_server)
    answer = ask(admin_server, "revoke", user=admin_server.user, vm="vm1")
    assert answer == {"event": "revoked", "grants": [first["id"], second["id"]]}
    assert ids_on_disk(admin_server) == [other["id"]]


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"grant": "00000000"}, "no temporary grant is '00000000'"),
        ({"grant": "\x1b"}, "no temporary grant is '\\x1b'"),
        ({"user": "eve", "vm": "vm1"}, "no temporary grant is 'eve' 'vm1'"),
        ({}, "nothing says what to revoke"),
    ],
)
def test_revoke_that_matches_no_grant_is_refused(
    admin_server: Server, about: dict[str, str], reason: str
) -> None:
    grant(admin_server)
    answer = ask(admin_server, "revoke", **about)
    assert (answer["event"], answer["code"], answer["reason"]) == ("refused", 64, reason)
    assert len(ids_on_disk(admin_server)) == 1


def test_expired_grant_ends_the_session_and_is_removed(admin_server: Server, clock: Clock) -> None:
    vm = admin_server.vm("vm1")
    given = grant(admin_server)
    gate = admin_server.open("vm1")
    _, far = admin_server.channel(vm)
    clock.set_forward_to(end_of(given) - timedelta(seconds=1))
    admin_server.use_map(admin_server.map.read_text())  # so that the broker looks at its clock now
    assert far.recv(1) == b""
    assert timedelta(0) <= clock.now() - end_of(given) < timedelta(seconds=PATIENCE * 1)
    while (end := gate.says())["event"] == "notice":
        pass  # a warning of the end
    assert end["reason"] == "you may no longer use 'vm1': your window is over"
    assert end["hint"] == "your time there is over; ask the admin"
    (line,) = wait_until(lambda: admin_server.audit("grant-end"), "the grant's end")
    assert (line["grant"], line["reason"]) == (given["id"], "expired")
    assert refused(admin_server)["reason"] == "you may not use 'vm1'"
    assert ids_on_disk(admin_server) == []
    assert ask(admin_server, "grants")["grants"] == []


def test_session_ends_soon_after_its_grant_if_the_map_no_longer_allows_it(
    admin_server: Server, clock: Clock
) -> None:
    """The session began under the map's own grant, which has no end."""
    put_in_force(admin_server, admin_server.user)
    vm = admin_server.vm("vm1")
    admin_server.open("vm1")
    _, far = admin_server.channel(vm)
    given = grant(admin_server)
    clock.set_forward_to(end_of(given) - timedelta(seconds=1))
    put_in_force(admin_server, "nobody-else")
    assert far.recv(1) == b""
    assert timedelta(0) <= clock.now() - end_of(given) < timedelta(seconds=PATIENCE * 2)


def put_in_force(server: Server, user: str) -> None:
    """A map that grants vm1 to this user."""
    server.write_map(user, "vm1")
    server.use_map(server.map.read_text())


def test_session_goes_on_if_a_longer_grant_remains(admin_server: Server, clock: Clock) -> None:
    vm = admin_server.vm("vm1")
    first = grant(admin_server)
    admin_server.open("vm1")
    viewer, far = admin_server.channel(vm)
    grant(admin_server, 7200)
    clock.set_forward_to(end_of(first))
    wait_until(lambda: admin_server.audit("grant-end"), "the first one's end")
    assert admin_server.audit("grant-end")[0]["grant"] == first["id"]
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"


def test_maps_own_grant_comes_before_a_temporary_one(admin_server: Server) -> None:
    admin_server.write_map(admin_server.user, "vm1", grant=", view-only: true")
    wait_until(lambda: len(admin_server.audit("map")) == 2, "the map")
    admin_server.vm("vm1")
    grant(admin_server)
    admin_server.open("vm1")
    line = admin_server.audit("open")[-1]
    assert line["grant"] == f"{admin_server.map}:7"
    assert line["channels"] == ["cursor", "display", "main", "playback"]
    assert "until" not in line


def test_grants_survive_a_restart_of_the_broker(admin_server: Server) -> None:
    """And one whose end comes while there is no broker is over."""
    vm = admin_server.vm("vm1")
    given, other = grant(admin_server), grant(admin_server, user=ANOTHER)
    admin_server.open("vm1")
    viewer, far = admin_server.channel(vm)
    admin_server.kill_broker()
    assert admin_server.audit("grant-end") == []
    end_an_hour_ago(admin_server, other["id"])
    restart(admin_server)
    wait_until(lambda: admin_server.audit("resume"), "the session to be handed over")
    viewer.sendall(b"on")
    assert far.recv(2) == b"on"
    assert ask(admin_server, "grants")["grants"] == [given]
    assert [line["grant"] for line in admin_server.audit("grant-end")] == [other["id"]]
    ask(admin_server, "revoke", grant=given["id"])
    assert far.recv(1) == b""


def end_an_hour_ago(server: Server, given: str) -> None:
    """Set the grant's times in the file back, as if that much time had passed."""
    file = server.state / "grants.json"
    grants = list(read_grants(file.read_bytes()))
    (moved,) = (each for each in grants if each.id == given)
    hours = timedelta(hours=2)  # it lasts one
    earlier = {"since": moved.since - hours, "until": moved.until - hours}
    grants[grants.index(moved)] = moved.model_copy(update=earlier)
    file.write_bytes(written(grants))


def test_grants_survive_a_reload_of_the_map(admin_server: Server) -> None:
    admin_server.vm("vm1")
    grant(admin_server)
    admin_server.write_map("nobody-else", "vm2", "vm1")
    wait_until(lambda: len(admin_server.audit("map")) == 2, "the map")
    admin_server.open("vm1")


def test_grant_has_no_effect_while_the_map_lacks_its_vm(admin_server: Server) -> None:
    vm = admin_server.vm("vm1")
    grant(admin_server)
    admin_server.open("vm1")
    _, far = admin_server.channel(vm)
    admin_server.write_map("nobody-else", "vm2")
    assert far.recv(1) == b""
    assert refused(admin_server)["reason"] == "you may not use 'vm1'"
    assert admin_server.gate("list --json").says()["vms"] == []
    admin_server.write_map("nobody-else", "vm2", "vm1")
    wait_until(lambda: len(admin_server.audit("map")) == 3, "the map")
    other = admin_server.other()
    assert other.gate("open --json vm1")["event"] == "ready"


def test_only_the_broker_may_read_the_grants_file(admin_server: Server) -> None:
    given = grant(admin_server)
    found = (admin_server.state / "grants.json").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert ids_on_disk(admin_server) == [given["id"]]
    assert {path.name for path in admin_server.state.iterdir()} == {
        "grants.json",
        "last-good-map.json",
        "lock",
    }


def test_grant_does_not_change_the_map(admin_server: Server) -> None:
    before = admin_server.map.read_bytes()
    grant(admin_server)
    assert admin_server.map.read_bytes() == before
    assert len(admin_server.audit("map")) == 1


def bad_json(server: Server) -> None:
    (server.state / "grants.json").write_text('{"v":1,"grants":[{}]}')


def writable_by_others(server: Server) -> None:
    grant(server)
    (server.state / "grants.json").chmod(0o666)


def dangling_symlink(server: Server) -> None:
    (server.state / "grants.json").symlink_to("/nowhere")


def too_large(server: Server) -> None:
    (server.state / "grants.json").write_bytes(b" " * (4 * 1024 * 1024 + 1))


def pipe(server: Server) -> None:
    os.mkfifo(server.state / "grants.json")


@pytest.mark.parametrize("spoil", [bad_json, writable_by_others, dangling_symlink, too_large, pipe])
def test_bad_file_grants_nothing_is_set_aside_and_logged(admin_server: Server, spoil: Any) -> None:
    spoil(admin_server)
    restart(admin_server)
    (fault,) = admin_server.audit("fault")
    assert str(fault["reason"]).startswith("no temporary grant is in force: ")
    assert fault["kept"] == str(admin_server.state / "grants.json.bad")
    assert os.path.lexists(admin_server.state / "grants.json.bad")
    assert ask(admin_server, "grants")["grants"] == []
    admin_server.vm("vm1")
    assert refused(admin_server)["code"] == 77
    given = grant(admin_server)
    assert ids_on_disk(admin_server) == [given["id"]]
    admin_server.open("vm1")


def test_grant_that_starts_in_the_future_is_removed(admin_server: Server) -> None:
    """The clock was a year ahead when the grant was given."""
    then = datetime.now(UTC) + timedelta(days=365)
    end = then + timedelta(hours=1)
    about = {"id": "00000001", "user": admin_server.user, "vm": "vm1", "by": "root"}
    late = TemporaryGrant(**about, since=then, until=end)
    (admin_server.state / "grants.json").write_bytes(written([late]))
    (admin_server.state / "grants.json").chmod(0o600)
    restart(admin_server)
    assert ask(admin_server, "grants")["grants"] == []
    assert admin_server.audit("grant-end")[0]["reason"] == "the clock has been set back"


def missing_directory(server: Server) -> str:
    shutil.rmtree(server.state)
    return "no such file or directory"


def writable_directory(server: Server) -> str:
    server.state.chmod(0o777)
    return "writable by no one else"


def file_in_its_place(server: Server) -> str:
    shutil.rmtree(server.state)
    server.state.write_text("")
    return "not a directory"


def locked_by_another(server: Server) -> str:
    import fcntl

    fd = os.open(server.state / "lock", os.O_RDWR)
    server.at_the_end(lambda: os.close(fd))
    fcntl.flock(fd, fcntl.LOCK_EX)
    return "another process"


@pytest.mark.parametrize(
    "spoil", [missing_directory, writable_directory, file_in_its_place, locked_by_another]
)
def test_without_a_usable_state_directory_grant_is_refused_but_open_works(
    server: Server, spoil: Any
) -> None:
    server.stop_broker()
    why = spoil(server)
    server.start("--admin-group", grp.getgrgid(os.getgid()).gr_name)
    (line,) = server.audit("grants")
    assert line["decision"] == "deny"
    assert why in str(line["reason"])
    answer = ask(server, "grant", user=ANOTHER, vm="vm1", seconds=60, reason="")
    assert (answer["event"], answer["code"]) == ("refused", 73)
    assert why in str(answer["reason"])
    assert answer["hint"]
    assert ask(server, "grants")["grants"] == []
    assert server.audit("grant") == []
    server.vm("vm1")
    server.open("vm1")


def full_disk(server: Server) -> None:
    """Make writing fail: a directory has the name of the file that is written first."""
    (server.state / ".grants.json.new").mkdir()


def test_grant_is_refused_if_it_cannot_be_written(admin_server: Server) -> None:
    full_disk(admin_server)
    answer = ask(admin_server, "grant", user=admin_server.user, vm="vm1", seconds=60, reason="")
    assert (answer["event"], answer["code"]) == ("refused", 73)
    admin_server.vm("vm1")
    assert refused(admin_server)["code"] == 77


def test_revoke_takes_effect_even_if_the_disk_is_full(admin_server: Server) -> None:
    vm = admin_server.vm("vm1")
    given = grant(admin_server)
    admin_server.open("vm1")
    _, far = admin_server.channel(vm)
    full_disk(admin_server)
    answer = ask(admin_server, "revoke", grant=given["id"])
    assert (answer["event"], answer["code"]) == ("refused", 73)
    assert str(answer["reason"]).startswith("revoked, but ")
    assert far.recv(1) == b""
    assert [line["grant"] for line in admin_server.audit("revoke")] == [given["id"]]
    restart(admin_server)
    assert ask(admin_server, "grants")["grants"] == []


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (
            {"user": "a:b"},
            "the user cannot be 'a:b': ':' separates the fields of passwd(5) and group(5)",
        ),
        ({"user": ""}, "the user cannot be '': a name has at least one character"),
        ({"user": "-anne"}, "no user '-anne' on this server"),
        ({"user": "\ud800"}, "the user cannot be '\\ud800': nobody can see the U+D800 in it"),
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
def test_grant_with_an_invalid_value_is_refused(
    admin_server: Server, about: dict[str, object], reason: str | None
) -> None:
    usual = {"user": ANOTHER, "vm": "vm1", "seconds": 60, "reason": ""}
    answer = ask(admin_server, "grant", **(usual | about))
    assert (answer["event"], answer["code"]) == ("refused", 64)
    assert reason in {None, answer["reason"]}
    assert not (admin_server.state / "grants.json").exists()


@pytest.mark.parametrize(
    "about", [{"seconds": "60"}, {"seconds": 1.5}, {"seconds": True}, {"user": None}, {"vm": 1}]
)
def test_grant_with_a_value_of_the_wrong_type_is_refused(
    admin_server: Server, about: dict[str, object]
) -> None:
    usual = {"user": ANOTHER, "vm": "vm1", "seconds": 60, "reason": ""}
    assert ask(admin_server, "grant", **(usual | about))["code"] == 70


def test_grant_to_somebody_without_an_account_is_refused(admin_server: Server) -> None:
    """Nobody of that name can ever come: it would be a typing mistake, kept for days."""
    answer = ask(admin_server, "grant", user="no-such-user", vm="vm1", seconds=60, reason="")
    assert (answer["event"], answer["code"]) == ("refused", 64)
    assert answer["reason"] == "no user 'no-such-user' on this server"
    assert "getent passwd no-such-user" in str(answer["hint"])
    assert ask(admin_server, "grants")["grants"] == []


def test_grant_to_somebody_who_comes_by_a_shared_account(admin_server: Server) -> None:
    admin_server.use_map("delegates: [root]\nvms: {vm1: {socket: '{dir}/vm1'}}\n")
    assert grant(admin_server, user="no-such-user")["user"] == "no-such-user"
    about = {"vm": "vm1", "seconds": 60, "reason": ""}
    answer = ask(admin_server, "grant", user="no such user", **about)
    assert answer["reason"] == (
        "no user 'no such user' on this server, and no key can be of that name"
    )


def test_ordinary_user_may_not_grant_revoke_or_list_grants(server: Server) -> None:
    server.directory.chmod(0o755)
    given = "00000000"
    with as_ordinary_user():
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


def test_long_grants_are_listed_in_several_packets(admin_server: Server) -> None:
    """A packet holds 64 KiB: too little for 150 grants of this length."""
    now = datetime.now(UTC).replace(microsecond=0)
    about: dict[str, Any] = {
        "since": now,
        "until": now + timedelta(hours=1),
        "by": "\U0001d400" * 9,
    }
    about |= {"user": "\U0001d400" * 200, "vm": "vm1", "reason": "\U0001d400" * 200}
    many = [TemporaryGrant(id=f"{number:08x}", **about) for number in range(150)]
    (admin_server.state / "grants.json").write_bytes(written(many))
    (admin_server.state / "grants.json").chmod(0o600)
    restart(admin_server)
    rows = ask_rows(str(admin_server.directory), "grants")
    assert [row["id"] for row in rows] == [each.id for each in many]
