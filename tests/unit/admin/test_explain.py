"""`spicetunnel explain`: the broker's decision, shown to the admin."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.policy.temporary import TemporaryGrant, written
from tests.unit.admin.office import write_map

Output = pytest.CaptureFixture[str]

ASK_GETENT = "'getent passwd NAME' asks the account database as this command does"

# (command line, exit code, output)
TEXTS = [
    (
        ["charlie", "vm1", "--at", "2026-12-24 18:00"],
        0,
        """\
yes: charlie may use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  grant     vms.yaml:9
  until     no end
  channels  all
  take over no

other grants:
  vms.yaml:10: names boss only
""",
    ),
    (
        ["boss", "vm1", "--at", "2026-12-24 18:00"],
        0,
        """\
yes: boss may use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  grant     vms.yaml:10
  until     Thu 2026-12-24 at 22:00 (CET)
  channels  all
  take over yes

other grants:
  vms.yaml:9: names charlie only
""",
    ),
    (
        ["boss", "vm1", "--at", "2026-12-25 23:00"],
        77,
        """\
no: boss may not use 'vm1', Fri 2026-12-25 at 23:00 (CET)
  reason    no grant that names boss holds
  next      Mon 2026-12-28 at 17:00 (CET)

grants:
  vms.yaml:9: names charlie only
  vms.yaml:10: not now; opens Mon 2026-12-28 at 17:00
""",
    ),
    (
        ["anne", "vm2", "--at", "2026-11-27 09:00", "--from", "192.0.2.9"],
        0,
        """\
yes: anne may use 'vm2', Fri 2026-11-27 at 09:00 (CET)
  grant     vms.yaml:18
  until     Fri 2026-11-27 at 12:15 (CET)
  channels  only cursor, display, main, playback
  agent     only clipboard-from-vm
  take over no

other grants:
  vms.yaml:16: names maggie only
  vms.yaml:17: not now; opens Wed 2026-12-02 at 00:00
  vms.yaml:19: not now; opens Sat 2026-11-28 at 22:00
""",
    ),
    (
        ["dave", "vm1", "--at", "2026-12-24 18:00"],
        77,
        """\
no: dave may not use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  reason    no grant names dave
  hint      spicetunnel grant dave vm1 --for 2h
  next      none

grants:
  vms.yaml:9: names charlie only
  vms.yaml:10: names boss only
""",
    ),
    (
        ["dave", "vm3", "--at", "2026-12-24 18:00"],
        77,
        """\
no: dave may not use 'vm3', Thu 2026-12-24 at 18:00 (CET)
  reason    no grant names dave
  hint      spicetunnel grant dave vm3 --for 2h
  next      none
""",
    ),
    (
        ["dave", "vm9", "--at", "2026-12-24 18:00"],
        77,
        """\
no: dave may not use 'vm9', Thu 2026-12-24 at 18:00 (CET)
  reason    the map has no vm 'vm9'
  hint      did you mean 'vm3'?
  next      none
""",
    ),
]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, office: str) -> None:
    """In the map's own directory, so that its path is short."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("arguments", "code", "text"), TEXTS)
def test_text(inside: None, capsys: Output, arguments: list[str], code: int, text: str) -> None:
    assert run(["explain", *arguments, "--map", "vms.yaml"]) == code
    assert capsys.readouterr() == (text, "")


def test_two_grants_that_match(tmp_path: Path, inside: None, capsys: Output) -> None:
    text = "vms: {vm1: {socket: /run/a, allow: [{user: anne}, {everyone: true}, {user: anne}]}}\n"
    write_map(tmp_path / "twice.yaml", text)
    assert run(["explain", "anne", "vm1", "--map", "twice.yaml"]) == 0
    also = "twice.yaml:1: matches too; the first that does decides\n"
    assert capsys.readouterr().out.count(also) == 2


def test_text_fits_80_columns(tmp_path: Path, inside: None, capsys: Output) -> None:
    everything = ", ".join(f"192.0.{number}.0/24" for number in range(40))
    text = f"vms: {{vm1: {{socket: /run/a, allow: [{{user: anne, from: [{everything}]}}]}}}}\n"
    write_map(tmp_path / "v.yaml", text)
    assert run(["explain", "anne", "vm1", "--map", "v.yaml"]) == 77
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert max(map(len, lines)) <= 80


def answer(capsys: Output, code: int, *arguments: str) -> dict[str, Any]:
    assert run(["explain", "--json", *arguments]) == code
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert isinstance(found, dict)
    return found


def test_json_allowed(office: str, capsys: Output) -> None:
    at = "2026-12-24 18:00"
    assert answer(capsys, 0, "boss", "vm1", "--at", at, "--map", office) == {
        "user": "boss",
        "via": None,
        "vm": "vm1",
        "at": "2026-12-24T18:00:00+01:00",
        "allow": True,
        "reason": "granted",
        "hint": "",
        "grant": {"file": office, "line": 10},
        "until": "2026-12-24T22:00:00+01:00",
        "next": None,
        "channels": {"allow": None},
        "agent": None,
        "take_over": True,
        "misses": [{"file": office, "line": 9, "why": "names charlie only"}],
    }


def test_json_refused(office: str, capsys: Output) -> None:
    at = "2026-07-03T20:00:00Z"  # 22:00 in Berlin: until before 22:00 it was open
    assert answer(capsys, 77, "boss", "vm1", "--at", at, "--map", office) == {
        "user": "boss",
        "via": None,
        "vm": "vm1",
        "at": "2026-07-03T22:00:00+02:00",
        "allow": False,
        "reason": "no grant that names boss holds",
        "hint": "",
        "grant": None,
        "until": None,
        "next": "2026-07-06T17:00:00+02:00",
        "channels": {"allow": []},
        "agent": [],
        "take_over": False,
        "misses": [
            {"file": office, "line": 9, "why": "names charlie only"},
            {"file": office, "line": 10, "why": "not now; opens Mon 2026-07-06 at 17:00"},
        ],
    }


def test_json_names_what_is_allowed(office: str, capsys: Output) -> None:
    found = answer(capsys, 0, "anne", "vm2", "--at", "2026-11-27 13:00", "--map", office)
    assert found["channels"] == {"allow": ["cursor", "display", "main", "playback"]}
    assert found["agent"] == ["clipboard-from-vm"]


def test_json_leaves_grants_that_match_out_of_the_misses(
    tmp_path: Path, office: str, capsys: Output
) -> None:
    text = "vms: {vm1: {socket: /run/a, allow: [{user: anne}, {everyone: true}]}}\n"
    path = write_map(tmp_path / "twice.yaml", text)
    assert answer(capsys, 0, "anne", "vm1", "--map", path)["misses"] == []


def test_json_for_an_unknown_vm(office: str, capsys: Output) -> None:
    found = answer(capsys, 77, "anne", "vm22", "--map", office)
    assert (found["allow"], found["grant"], found["misses"]) == (False, None, [])
    assert (found["reason"], found["hint"]) == ("the map has no vm 'vm22'", "did you mean 'vm2'?")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lisa", "lab-win"], 77),
        (["lisa", "lab-win", "--console"], 0),
        (["anne", "vm2", "--at", "2026-11-29 05:59", "--from", "192.0.2.1"], 0),
        (["anne", "vm2", "--at", "2026-11-29 06:00", "--from", "192.0.2.1"], 77),
        (["anne", "vm2", "--at", "2026-11-29 05:59", "--from", "198.51.100.1"], 77),
        (["anne", "vm2", "--at", "2026-11-29 05:59", "--from", "2001:db8::1"], 77),
        (["anne", "vm2", "--at", "2026-11-29 05:59"], 77),
        (["anne", "vm2", "--at", "2026-11-29 04:59Z", "--from", "192.0.2.1"], 0),
        (["anne", "vm2", "--at", "2026-11-26"], 0),  # midnight
    ],
)
def test_place_and_moment(office: str, arguments: list[str], code: int) -> None:
    assert run(["explain", *arguments, "--map", office]) == code


def test_the_moment_is_in_the_vms_time_zone(office: str, capsys: Output) -> None:
    found = answer(capsys, 77, "lisa", "lab-win", "--at", "2026-11-27 13:00", "--map", office)
    assert found["at"] == "2026-11-27T13:00:00-05:00"


def test_default_moment_is_now(office: str, capsys: Output) -> None:
    found = answer(capsys, 0, "charlie", "vm1", "--map", office)
    moment = datetime.fromisoformat(found["at"])
    assert abs((datetime.now(moment.tzinfo) - moment).total_seconds()) < 60


def test_missing_address_is_the_reason(office: str, capsys: Output) -> None:
    found = answer(capsys, 77, "anne", "vm2", "--at", "2026-11-28 23:00", "--map", office)
    assert found["misses"][-1]["why"] == (
        "only from 192.0.2.0/24, and no address was given with --from"
    )


SHARED = """\
delegates: [spice, 1021]
timezone: Europe/Berlin
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {group: students}
      - {user: zoe, from: 192.0.2.0/24}
      - {user: zoe, where: console}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["--from", "192.0.2.7"],
            0,
            """\
yes: zoe may use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  account   none here: comes through a shared account, spice or 1021
  grant     v.yaml:8
  until     no end
  channels  all
  take over no

other grants:
  v.yaml:7: names group students only
  v.yaml:9: only at the console of this server
""",
        ),
        (
            ["--console"],  # nobody sits at a seat without an account
            77,
            """\
no: zoe may not use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  account   none here: comes through a shared account, spice or 1021
  reason    no grant that names zoe holds
  next      none

grants:
  v.yaml:7: names group students only
  v.yaml:8: only from 192.0.2.0/24, and no address was given with --from
  v.yaml:9: only at the console of this server
""",
        ),
    ],
)
def test_person_who_comes_through_a_shared_account(
    tmp_path: Path, inside: None, capsys: Output, arguments: list[str], code: int, text: str
) -> None:
    write_map(tmp_path / "v.yaml", SHARED)
    at = ["--at", "2026-12-24 18:00"]
    assert run(["explain", "zoe", "vm1", *at, *arguments, "--map", "v.yaml"]) == code
    assert capsys.readouterr() == (text, "")


def test_json_says_through_which_shared_accounts(
    tmp_path: Path, office: str, capsys: Output
) -> None:
    path = write_map(tmp_path / "v.yaml", SHARED)
    assert answer(capsys, 77, "eve", "vm1", "--map", path)["via"] == ["spice", "1021"]
    assert answer(capsys, 0, "lisa", "vm1", "--map", path)["via"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "hint"),
    [
        (["eve", "vm1"], 67, "no user 'eve' on this server", ASK_GETENT),
        (
            ["anne", "vm1", "--at", "yesterday"],
            64,
            "--at must be a date and a time, not 'yesterday'",
            "write it like '2026-12-24 18:00', or with an offset, '2026-12-24T18:00+01:00'",
        ),
        (
            ["anne", "vm1", "--from", "here\x1b"],
            64,
            "--from must be an IP address, not 'here\\x1b'",
            "write it like 192.0.2.7 or 2001:db8::7",
        ),
    ],
)
def test_wrong_use(
    office: str, capsys: Output, arguments: list[str], code: int, reason: str, hint: str
) -> None:
    assert run(["explain", *arguments, "--map", office]) == code
    assert capsys.readouterr() == ("", f"spicetunnel: {reason}\nhint: {hint}\n")


@pytest.mark.parametrize("year", ["0001", "1969", "9999"])
def test_years_beyond_the_calendar(office: str, capsys: Output, year: str) -> None:
    assert run(["explain", "anne", "vm1", "--at", f"{year}-12-31", "--map", office]) == 64


def test_a_bad_map(tmp_path: Path, capsys: Output) -> None:
    path = write_map(tmp_path / "bad.yaml", "vms: {vm1: {}}\n")
    assert run(["explain", "root", "vm1", "--map", path]) == 78
    assert capsys.readouterr().err.startswith(f"spicetunnel: {path}:1:")


def test_nothing_from_outside_reaches_the_terminal_raw(office: str, capsys: Output) -> None:
    assert run(["explain", "anne", "\x1b[2J\u202e", "--map", office]) == 77
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal(office: str, no_color: str, coloured: bool) -> None:
    code = "from spicetunnel.admin.cli import main; main()"
    command = [sys.executable, "-c", code, "explain", "root", "vm1", "--map", office]
    ours, theirs = os.openpty()
    try:
        env = {**os.environ, "NO_COLOR": no_color}
        done = subprocess.run(command, env=env, stdout=theirs, stderr=theirs, check=False)
        assert done.returncode == 77
        assert (b"\x1b[31mno\x1b[0m: root" in os.read(ours, 65536)) is coloured
    finally:
        os.close(ours)
        os.close(theirs)


def keep(state: Path, **more: object) -> TemporaryGrant:
    """Put one temporary grant into the broker's file."""
    usual: dict[str, Any] = {"id": "3f2a0000", "user": "dave", "vm": "vm1", "by": "root"}
    since = datetime(2026, 12, 24, 16, tzinfo=UTC)
    usual |= {"since": since, "until": since + timedelta(hours=3), "reason": "the printer"}
    given = TemporaryGrant(**(usual | more))
    (state / "grants.json").write_bytes(written([given]))
    return given


LENT = ["dave", "vm1", "--at", "2026-12-24 18:00"]


def test_text_of_a_temporary_grant(tmp_path: Path, inside: None, capsys: Output) -> None:
    given = keep(tmp_path)
    assert run(["explain", *LENT, "--map", "vms.yaml", "--state-dir", "."]) == 0
    assert capsys.readouterr() == (
        f"""\
yes: dave may use 'vm1', Thu 2026-12-24 at 18:00 (CET)
  grant     {given.source}
  reason    the printer
  until     Thu 2026-12-24 at 20:00 (CET)
  channels  all
  take over no

other grants:
  vms.yaml:9: names charlie only
  vms.yaml:10: names boss only
""",
        "",
    )


def test_text_of_temporary_grants_that_do_not_decide(
    tmp_path: Path, inside: None, capsys: Output
) -> None:
    given = keep(tmp_path)
    for person, moment, why in [
        ("charlie", "18:00", "names dave only"),
        ("dave", "20:00", "over: it does not open again"),
    ]:
        words = [person, "vm1", "--at", f"2026-12-24 {moment}"]
        run(["explain", *words, "--map", "vms.yaml", "--state-dir", "."])
        out = " ".join(capsys.readouterr().out.split())
        assert out.endswith(f"{given.source}: {why}")


def test_json_of_temporary_grants(tmp_path: Path, office: str, capsys: Output) -> None:
    keep(tmp_path)
    about = {"by": "root", "reason": "the printer", "until": "2026-12-24T20:00:00+01:00"}
    lent = {"temporary": "3f2a0000", **about}
    options = ["--map", office, "--state-dir", str(tmp_path)]
    found = answer(capsys, 0, *LENT, *options)
    assert (found["grant"], found["until"]) == (lent, about["until"])
    at = ["--at", "2026-12-24 18:00"]
    found = answer(capsys, 0, "boss", "vm1", *at, *options)
    assert found["grant"] == {"file": office, "line": 10}
    assert found["misses"][-1] == {**lent, "why": "names dave only"}


def test_grant_for_an_unknown_vm_does_not_make_it_known(
    tmp_path: Path, office: str, capsys: Output
) -> None:
    keep(tmp_path, vm="vm9")
    options = ["--map", office, "--state-dir", str(tmp_path)]
    assert answer(capsys, 77, "dave", "vm9", *options)["reason"] == "the map has no vm 'vm9'"


def garbage(state: Path) -> str:
    (state / "grants.json").write_text('{"v":1,"grants":[{}]}')
    return "grants.0.id: field required"


def pipe(state: Path) -> str:
    os.mkfifo(state / "grants.json")
    return "is not a regular file"


def link(state: Path) -> str:
    (state / "grants.json").symlink_to("/etc/passwd")
    return "too many levels of symbolic links"


def large(state: Path) -> str:
    (state / "grants.json").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    return "is too large"


def missing(state: Path) -> str:
    state.rmdir()
    return "no such file or directory"


@pytest.mark.parametrize("spoil", [garbage, pipe, link, large, missing])
def test_there_is_no_definite_no_without_the_temporary_grants(
    tmp_path: Path, office: str, capsys: Output, spoil: Callable[[Path], str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    why = spoil(state)
    options = ["--map", office, "--state-dir", str(state), "--run-dir", "/no"]
    assert run(["explain", *LENT, *options]) == 66
    file = state / "grants.json"
    said = capsys.readouterr()
    assert said.err == (
        f"spicetunnel: the temporary grants cannot be read: {file}: {why}\n"
        "hint: run this as root, or as a member of the admin group while the broker runs\n"
    )
    assert said.out.startswith("cannot tell: dave may not, unless by a temporary grant, use 'vm1'")
    assert run(["explain", "--json", *LENT, *options]) == 66
    assert json.loads(capsys.readouterr().out)["allow"] is None


def test_yes_and_a_vm_that_is_not_there_need_no_temporary_grants(
    tmp_path: Path, office: str, capsys: Output
) -> None:
    options = ["--map", office, "--state-dir", str(tmp_path / "missing"), "--run-dir", "/no"]
    assert run(["explain", "charlie", "vm1", *options]) == 0
    assert run(["explain", "charlie", "vm9", *options]) == 77
    said = capsys.readouterr()
    assert said.err.count("the temporary grants cannot be read") == 2
    assert said.out.startswith("yes: charlie may use 'vm1'")


def test_missing_grants_file_is_no_error(tmp_path: Path, office: str, capsys: Output) -> None:
    assert run(["explain", *LENT, "--map", office, "--state-dir", str(tmp_path)]) == 77
    assert capsys.readouterr().err == ""
