"""`spicetunnel check`: a map read as the broker reads it, for people and for programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spicetunnel.admin import eyes
from spicetunnel.admin.cli import run
from spicetunnel.policy import accounts

Output = pytest.CaptureFixture[str]

GOOD = """\
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - user: ann
      - group: staff
  vm2: {socket: /run/vm2.sock}
"""
BAD = """\
vms:
  vm1:
    sokcet: /run/vm1.sock
"""


ACCOUNTS = {"ann", "bob", 1000}
GROUPS = {"staff"}


@pytest.fixture(autouse=True)
def _accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account database, whichever this machine has."""
    monkeypatch.setattr(accounts, "has_user", ACCOUNTS.__contains__)
    monkeypatch.setattr(accounts, "has_group", GROUPS.__contains__)
    monkeypatch.setattr(eyes, "BROKER_USER", "no-such-user")


def map_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "vms.yaml"
    path.write_text(text)
    path.chmod(0o640)
    return str(path)


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        (GOOD, "2 vms, 2 grants"),
        ("vms: {}", "0 vms, 0 grants"),
        ("vms: {vm1: {socket: /run/a, allow: [user: ann]}}", "1 vm, 1 grant"),
    ],
)
def test_a_good_map(tmp_path: Path, capsys: Output, text: str, summary: str) -> None:
    path = map_of(tmp_path, text)
    assert run(["check", path]) == 0
    assert capsys.readouterr() == (f"{path}: ok, {summary}\n", "")


def test_map_by_option(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, GOOD)
    assert run(["check", "--map", path]) == 0
    assert capsys.readouterr() == (f"{path}: ok, 2 vms, 2 grants\n", "")


def test_argument_wins_over_the_option(tmp_path: Path) -> None:
    assert run(["check", map_of(tmp_path, GOOD), "--map", "/no/vms.yaml"]) == 0


def test_every_problem_of_a_bad_map_is_shown(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, BAD)
    assert run(["check", path]) == 78
    said = (
        f"{path}:2:3: vm 'vm1' has no 'socket'\n"
        "     2 |   vm1:\n"
        "       |   ^\n"
        "hint: add 'socket: /PATH', where QEMU listens for SPICE\n"
        f"{path}:3:5: unknown key 'sokcet' in vm 'vm1'\n"
        "     3 |     sokcet: /run/vm1.sock\n"
        "       |     ^\n"
        "hint: did you mean 'socket'?\n"
    )
    assert capsys.readouterr() == ("", said)


def test_an_untrusted_file(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, GOOD)
    os.chmod(path, 0o666)
    assert run(["check", path]) == 78
    said = f"{path}: may be written by others\nhint: chmod go-w {path}\n"
    assert capsys.readouterr() == ("", said)


def test_a_missing_file(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "missing.yaml"
    assert run(["check", str(path)]) == 66
    said = f"{path}: cannot be read: no such file or directory\n"
    hint = "hint: create the file, or correct its path\n"
    assert capsys.readouterr() == ("", said + hint)


def test_json_for_a_good_map(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, GOOD)
    assert run(["check", "--json", path]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    counts = {"vms": 2, "grants": 2}
    assert json.loads(said.out) == {
        "file": path,
        "ok": True,
        **counts,
        "problems": [],
        "warnings": [],
    }


def test_json_for_a_bad_map(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, BAD)
    assert run(["check", "--json", path]) == 78
    said = capsys.readouterr()
    assert said.err == ""
    answer = json.loads(said.out)
    assert (answer["ok"], answer["vms"], len(answer["problems"])) == (False, 0, 2)
    assert answer["problems"][1] == {
        "file": path,
        "line": 3,
        "column": 5,
        "message": "unknown key 'sokcet' in vm 'vm1'",
        "hint": "did you mean 'socket'?",
        "text": "    sokcet: /run/vm1.sock",
    }


@pytest.mark.parametrize(
    ("no_color", "coloured"), [(None, True), ("", True), ("1", False), ("0", False)]
)
def test_colours_on_a_terminal(tmp_path: Path, no_color: str | None, coloured: bool) -> None:
    assert (b"\x1b[" in on_terminal(map_of(tmp_path, BAD), no_color)) is coloured


def on_terminal(path: str, no_color: str | None) -> bytes:
    """What `check` writes to a real pseudo-terminal."""
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    if no_color is not None:
        env["NO_COLOR"] = no_color
    command = [
        sys.executable,
        "-c",
        "from spicetunnel.admin.cli import main; main()",
        "check",
        path,
    ]
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(command, env=env, stdout=theirs, stderr=theirs, check=False)
        assert done.returncode == 78
        return os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


UNKNOWN = """\
people:
  tutors:
    - user: ann
    - group: proffessors
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - user: [ann, zoe]
      - uid: [1000, 1001]
      - people: tutors
      - user: ann
        ends: 2020-12-24
      - user: bob
        except: 2020-01-01..9999-12-31
"""


def warned(file: str) -> list[str]:
    return [
        f"{file}:4: warning: no group 'proffessors' on this server",
        f"{file}:9: warning: no user 'zoe' on this server",
        f"{file}:10: warning: no user has the uid 1001 on this server",
        f"{file}:12: warning: this grant ended on 2020-12-24",
        f"{file}:14: warning: this grant never holds: its dates leave no window",
    ]


def test_warns_of_accounts_that_do_not_exist_and_of_grants_that_are_over(
    tmp_path: Path, capsys: Output
) -> None:
    path = map_of(tmp_path, UNKNOWN)
    assert run(["check", path]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[::3] == warned(path)
    assert lines[1] == "     4 |     - group: proffessors"
    assert all(line.startswith("hint: ") for line in lines[2::3])
    assert "getent group proffessors" in lines[2]
    assert said.out == f"{path}: ok, 1 vm, 5 grants, 5 warnings\n"


def test_strict_fails_on_warnings(tmp_path: Path, capsys: Output) -> None:
    assert run(["check", "--strict", map_of(tmp_path, GOOD)]) == 0
    assert run(["check", "--strict", map_of(tmp_path, UNKNOWN)]) == 78
    assert capsys.readouterr().out.count("\n") == 1
    assert run(["check", "--strict", "--json", map_of(tmp_path, UNKNOWN)]) == 78
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["problems"], len(answer["warnings"])) == (False, [], 5)


def test_people_of_a_shared_account_need_no_account_but_groups_and_delegates_must_exist(
    tmp_path: Path, capsys: Output
) -> None:
    text = "delegates: [ann, spice, '1000', '1001']\n" + UNKNOWN.replace("zoe", "zoe, 'a b'")
    path = map_of(tmp_path, text)
    assert run(["check", path]) == 0
    said = capsys.readouterr().err
    assert "'zoe'" not in said
    assert ":10: warning: no user 'a b' on this server" in said, "no key can be of that name"
    assert "getent passwd 'a b'\n" in said
    assert f"{path}: warning: 'delegates': no user 'spice' on this server" in said
    assert "'1001'" in said
    assert "'1000'" not in said
    assert "proffessors" in said


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOOJRRF+6pSlQjW8W1cUqck+IG/i/7oNqz96F9EmMQth"


def test_keys_beside_the_map_are_checked(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd discards what `keys` says at a login."""
    monkeypatch.setattr(eyes, "KEYS_USER", "no-such-user")  # who may not enter pytest's directory
    path = map_of(tmp_path, GOOD)
    keys_d = tmp_path / "keys.d"
    keys_d.mkdir(mode=0o755)
    (keys_d / "ann.pub").write_text(f"{KEY}\n")
    assert run(["check", path]) == 0
    (keys_d / "bob").write_text(KEY)
    capsys.readouterr()
    assert run(["check", path]) == 0
    assert capsys.readouterr().err.startswith(f"{keys_d}/bob: warning: is not read: ")
    (keys_d / "ann.pub").write_text(f"{KEY}\nno-pty {KEY}\n")
    assert run(["check", path]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{keys_d}/ann.pub:2: has options before the key")


def test_hostile_line_reaches_the_terminal_spelt_out(tmp_path: Path, capsys: Output) -> None:
    assert run(["check", map_of(tmp_path, "vms: {vm1: \x1b[2J\u202e}\n")]) == 78
    assert "     1 | vms: {vm1: \\x1b[2J\\u202e}\n" in capsys.readouterr().err


def test_line_of_a_part_is_from_the_part(tmp_path: Path, capsys: Output) -> None:
    path = map_of(tmp_path, GOOD)
    (tmp_path / "vms.d").mkdir(mode=0o755)
    (tmp_path / "vms.d" / "lab.yaml").write_text("# lab\nvms: {vm1: {socket: /run/vm1.sock}}\n")
    assert run(["check", path]) == 78
    said = capsys.readouterr().err.splitlines()
    assert said[1:3] == ["     2 | vms: {vm1: {socket: /run/vm1.sock}}", "       |       ^"]


def test_warns_of_a_map_that_everybody_can_read(tmp_path: Path, capsys: Output) -> None:
    """A refusal does not tell which VMs there are; the file would."""
    path = map_of(tmp_path, GOOD)
    (tmp_path / "vms.d").mkdir(mode=0o755)
    part = tmp_path / "vms.d" / "lab.yaml"
    part.write_text("vms: {}\n")
    part.chmod(0o644)
    assert run(["check", path]) == 0
    assert capsys.readouterr().err == (
        f"{part}: warning: everybody on this server can read it, and so who may use what\n"
        f"hint: chgrp no-such-user {part}; chmod 640 {part}\n"
    )
    part.chmod(0o640)
    assert run(["check", "--strict", path]) == 0
