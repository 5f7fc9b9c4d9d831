"""`spicetunnel log`: visits and events, from the broker's lines."""

import io
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.auditlog import Entries
from spicetunnel.admin.cli import run
from spicetunnel.admin.history import History
from spicetunnel.admin.options import past
from spicetunnel.common.errors import UsageError
from tests.unit.admin.answering import HOSTILE

Output = pytest.CaptureFixture[str]

ANNE = {"user": "anne", "uid": 1001, "client": "192.0.2.7"}
BOSS = {"user": "boss", "uid": 1002, "client": "2001:db8::7"}


def line(clock: str, event: str, **fields: object) -> str:
    """One of the broker's: 24 December in Berlin, unless `clock` names another day."""
    moment = clock if " " in clock else f"2026-12-24 {clock}"
    local = datetime.fromisoformat(f"{moment}+01:00")
    return json.dumps({"time": local.isoformat(timespec="milliseconds"), "event": event, **fields})


def opened(clock: str, session: str, who: dict[str, Any], vm: str) -> str:
    return line(clock, "open", session=session, **who, vm=vm, decision="allow")


def ended(clock: str, session: str, who: dict[str, Any], vm: str, **more: object) -> str:
    about = {"seconds": 1800.0, "channels": 7, "bytes_up": 1200, "bytes_down": 45_000_000}
    return line(clock, "session-end", session=session, **who, vm=vm, **{**about, **more})


LOG = [
    line("08:00", "start", version="1.2.3", boot="one"),
    line("08:00", "map", decision="allow", file="vms.yaml", vms=12, grants=40),
    opened("09:00", "a1", ANNE, "vm1"),
    line("09:00", "channel", session="a1", **ANNE, vm="vm1", type="main", decision="allow"),
    line("09:10", "open", **BOSS, vm="vm1", decision="deny", reason="'vm1' is in use by anne"),
    opened("09:20", "b1", BOSS, "vm2"),
    line("09:25", "stop", sessions=2),
    line("09:26", "start", version="1.2.4", boot="one"),
    line("09:26", "resume", session="b1", **BOSS, vm="vm2", channels=7),
    ended("09:30", "a1", ANNE, "vm1", reason="the client left"),
    line("10:00", "map", decision="deny", reason="not valid", problems=["vms.yaml:3:5: what", "x"]),
    line("10:05", "kick", session="b1", user="boss", vm="vm2", by="root", reason="noon"),
    ended("10:05", "b1", BOSS, "vm2", reason="your session at 'vm2' was ended by the admin: noon"),
    line("10:10", "grant", user="anne", vm="vm2", until="2026-12-24T12:10+01:00", by="root"),
    line("10:20", "revoke", user="anne", vm="vm2", by="root", reason="enough"),
    line("10:30", "command", decision="deny", **ANNE, reason="not a command", command="rm"),
    opened("10:40", "a2", ANNE, "vm1"),
    line("10:50", "start", version="1.2.4", boot="two"),
    opened("11:00", "a3", ANNE, "vm1"),
    opened("2026-12-25 00:10", "b2", BOSS, "vm2"),
    ended("2026-12-26 09:00", "a3", ANNE, "vm1", reason="the client left"),
]

A1 = "2026-12-24 09:00:00-09:30:00 anne     vm1      192.0.2.7     1.2k/45M  the client left"
B1 = "2026-12-24 09:20:00-10:05:00 boss     vm2      2001:db8::7   1.2k/45M  "
B1 += "your session at 'vm2' was ended by the admin: noon"
A2 = "2026-12-24 10:40:00-10:50:00 anne     vm1      192.0.2.7     -         the "
A2 += "server was restarted"
A3 = "2026-12-24 11:00:00-2026-12-26 09:00:00 anne     vm1      192.0.2.7     "
A3 += "1.2k/45M  the client left"
B2 = "2026-12-25 00:10:00-         boss     vm2      2001:db8::7   -         still there"
DENIED = (
    "2026-12-24 09:10:00          boss     vm1      2001:db8::7   refused: 'vm1' is in use by anne"
)
KICK = "2026-12-24 10:05:00          boss     vm2      -             ended by root: noon"
GRANT = "2026-12-24 10:10:00          anne     vm2      -             granted until "
GRANT += "2026-12-24 12:10:00 by root"
REVOKE = (
    "2026-12-24 10:20:00          anne     vm2      -             grant taken back by root: enough"
)
MAP = "2026-12-24 08:00:00          map in force: 12 vms, 40 grants"
NO_MAP = "2026-12-24 10:00:00          map refused: vms.yaml:3:5: what"
CLOCK = "spicetunnel: times are on this server's clock, CET (UTC+0100)\n"
USUAL = [MAP, DENIED, A1, NO_MAP, KICK, B1, GRANT, REVOKE, A2, A3, B2]


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path, LOG)


def written(directory: Path, lines: list[str]) -> str:
    path = directory / "audit.log"
    path.write_text("\n".join([*lines, ""]))
    return str(path)


# (what is asked, what is answered)
QUESTIONS: list[tuple[list[str], list[str]]] = [
    ([], USUAL),
    (["--user", "anne"], [A1, GRANT, REVOKE, A2, A3]),
    (["--vm", "vm2"], [KICK, B1, GRANT, REVOKE, B2]),
    (["--user", "anne", "--vm", "vm2"], [GRANT, REVOKE]),
    (["--at", "2026-12-24 09:25"], [A1, B1]),
    (["--at", "2026-12-24T08:25Z", "--vm", "vm1"], [A1]),
    (["--at", "2026-12-24 09:30"], [B1]),  # the very moment at which she left
    (["--at", "2026-12-24 09:00"], [A1]),  # and at which she came
    (["--at", "2026-12-25 03:00"], [A3, B2]),
    (["--at", "2026-12-24 10:55"], []),
    (["--at", "2027-02-01"], [B2]),
    (["--since", "2026-12-24 10:30"], [A2, A3, B2]),
    (["--since", "2026-12-24 10:06", "--until", "2026-12-24 10:20"], [GRANT]),
    (["--until", "2026-12-24 09:05"], [MAP, A1]),
]


@pytest.mark.parametrize(("asked", "answered"), QUESTIONS)
def test_who_was_there(asked: list[str], answered: list[str], file: str, capsys: Output) -> None:
    assert run(["log", "--file", file, *asked]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == answered
    assert said.err == (CLOCK if answered else "spicetunnel: no matching entries\n")


def test_all_shows_the_brokers_own_events(file: str, capsys: Output) -> None:
    assert run(["log", "--file", file, "--all"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [each for each in said if each not in USUAL] == [
        "2026-12-24 08:00:00          start 1.2.3",
        "2026-12-24 09:25:00          stop",
        "2026-12-24 09:26:00          start 1.2.4",
        "2026-12-24 10:30:00          command rm not a command",
        "2026-12-24 10:50:00          start 1.2.4",
    ]


def test_usual_visits_fit_into_80_columns_but_for_why_they_ended() -> None:
    assert max(map(len, (A1.removesuffix("the client left"), KICK, MAP))) <= 80


def test_json_is_one_object_a_line(file: str, capsys: Output) -> None:
    assert run(["log", "--file", file, "--json", "--vm", "vm2"]) == 0
    kick, boss, *_, still = map(json.loads, capsys.readouterr().out.splitlines())
    assert (kick["event"], kick["by"]) == ("kick", "root")
    assert boss == {
        "event": "session",
        "session": "b1",
        "user": "boss",
        "vm": "vm2",
        "client": "2001:db8::7",
        "via": "",
        "since": "2026-12-24T09:20:00.000+01:00",
        "until": "2026-12-24T10:05:00.000+01:00",
        "bytes_up": 1200,
        "bytes_down": 45_000_000,
        "reason": "your session at 'vm2' was ended by the admin: noon",
    }
    assert (still["since"][:10], still["until"], still["bytes_up"]) == ("2026-12-25", None, None)
    assert run(["log", "--file", file, "--json", "--vm", "vm9"]) == 0
    assert capsys.readouterr() == ("", "")


def test_log_that_begins_after_the_visit(tmp_path: Path, capsys: Output) -> None:
    """The end of a visit still tells when it began."""
    lines = [line("09:26", "resume", session="b1", **BOSS, vm="vm2"), *LOG[9:13]]
    assert run(["log", "--file", written(tmp_path, lines)]) == 0
    begun = B1.replace("09:20:00", "09:35:00")  # half an hour before its end
    assert capsys.readouterr().out.splitlines() == [A1, NO_MAP, KICK, begun]
    assert run(["log", "--file", written(tmp_path, lines[:1])]) == 0
    assert capsys.readouterr().out.startswith("2026-12-24 09:26:00-         boss ")


def test_start_without_a_known_earlier_boot_ends_no_visit(tmp_path: Path, capsys: Output) -> None:
    lines = [LOG[2], *(line("09:01", "start", boot=boot) for boot in ("", "one", "", "one"))]
    assert run(["log", "--file", written(tmp_path, lines)]) == 0
    assert capsys.readouterr().out.endswith("still there\n")


FOREIGN = [
    "Started spicetunneld.service.",
    "",
    "[]",
    "1",
    "null",
    "{",
    "[" * 100_000,
    '{"event": "open"}',
    '{"event": "open", "time": "now"}',
    '{"event": "open", "time": 5}',
    '{"event": "open", "time": "2026-12-24T09:00"}',
    '{"event": "open", "time": "0001-01-01T00:00+00:00"}',
    '{"event": 1, "time": "2026-12-24T09:00+00:00"}',
    "9" * 5000,
    "\xff",
]


def test_lines_of_others_are_skipped(tmp_path: Path, capsys: Output) -> None:
    path = written(tmp_path, [*FOREIGN, *LOG])
    assert run(["log", "--file", path]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == USUAL
    what = f"passed over {len(FOREIGN)} lines that the broker did not write"
    assert said.err == f"spicetunnel: {what}\n{CLOCK}"


def test_endless_line_is_skipped_whole() -> None:
    """Even if the bytes after the buffer's end would make a line."""
    inside = b"x" * (256 * 1024) + LOG[2].encode() + b"\n"
    entries = Entries(io.BytesIO(inside + LOG[4].encode() + b"\n"))
    assert [entry.word("decision") for entry in entries] == ["deny"]
    assert entries.foreign == 2


ODD: list[object] = [1, None, [], {}, HOSTILE, -1, 1e400, 10**30, True]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("form", [[], ["--json"], ["--all"], ["--at", "2026-12-24 09:05"]])
def test_nothing_in_a_line_is_trusted(
    odd: object, form: list[str], tmp_path: Path, capsys: Output
) -> None:
    keys = ["session", "user", "vm", "client", "via", "reason", "seconds", "bytes_up"]
    keys += [
        "bytes_down",
        "by",
        "until",
        "boot",
        "problems",
        "vms",
        "grants",
        "decision",
        "command",
    ]
    events = ["open", "resume", "session-end", "start", "kick", "map", "grant", "revoke", "fault"]
    bad: dict[str, Any] = dict.fromkeys(keys, odd)
    lines = [line("09:00", event, **bad) for event in [*events, HOSTILE]]
    lines.append(line("09:00", "open", **{**bad, "decision": "allow"}))
    lines.append(line("09:00", "map", **{**bad, "decision": "deny", "problems": [odd]}))
    assert run(["log", *form, "--file", written(tmp_path, lines)]) == 0
    said = capsys.readouterr()
    assert said.err in {"", CLOCK, "spicetunnel: no matching entries\n"}
    assert all(text.isprintable() for text in said.out.splitlines())


def test_stdin(file: str, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(file) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert (
            run(["log", "--file", "-", "--user", "anne", "--vm", "vm1", "--until", "2027-01-01"])
            == 0
        )
    assert capsys.readouterr().out.splitlines() == [A1, A2, A3]


def test_file_that_is_not_there(capsys: Output) -> None:
    assert run(["log", "--file", "/no/\x1b.log"]) == 66
    said = "spicetunnel: /no/\\x1b.log cannot be read: no such file or directory\n"
    said += "hint: correct its path\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--at", "noon"], "--at must be a moment, not 'noon'"),
        (["--since", "0001-01-01"], "--since must be a moment, not '0001-01-01'"),
        (["--until", HOSTILE], "--until must be a moment, not 'x\\n"),
        (["--at", "1h", "--since", "2h"], "--at is one moment, --since and --until are a span"),
    ],
)
def test_wrong_use(words: list[str], reason: str, capsys: Output) -> None:
    assert run(["log", "--file", "/dev/null", *words]) == 64
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"spicetunnel: {reason}")
    assert second.startswith("hint: ")


def test_moments() -> None:
    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert past("--at", "today") == midnight
    assert past("--at", "yesterday").astimezone().date() == midnight.date() - timedelta(days=1)
    assert abs(past("--at", "1h30m") - now + timedelta(minutes=90)) < timedelta(seconds=5)
    assert past("--at", "2026-07-01 12:00").isoformat() == "2026-07-01T10:00:00+00:00"
    assert past("--at", "2026-07-01T12:00+05:00").isoformat() == "2026-07-01T07:00:00+00:00"
    assert past("--at", "2026-12-24").isoformat() == "2026-12-23T23:00:00+00:00"
    for clock, hour, minute, second in (("21:30", 21, 30, 0), ("7:05:09", 7, 5, 9)):
        assert past("--at", clock) == midnight.replace(hour=hour, minute=minute, second=second)
    for word in ("", "24:00", "21:60", "21"):
        with pytest.raises(UsageError):
            past("--at", word)


def test_help_names_the_time_zone() -> None:
    """In a process of its own: the help is made when the command is imported."""
    code = "from spicetunnel.admin.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "log", "-h"], capture_output=True, text=True, check=True
    )
    assert "Times are on this server's clock, CET (UTC+0100)." in done.stdout or (
        "CEST (UTC+0200)" in done.stdout
    )
    assert "21:30 (today)" in " ".join(done.stdout.split())


@pytest.fixture
def journal(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for systemd's journalctl: there is no journal here."""
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {file}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_journal(journal: Path, capsys: Output) -> None:
    assert run(["log"]) == 0
    assert capsys.readouterr().out.splitlines() == USUAL
    asked = "--unit spicetunneld.service --output cat --no-pager\n"
    assert journal.with_name("asked").read_text() == asked


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("No journal files were found.", 69, "this server has no journal"),
        (
            "Hint: You are currently not seeing messages from other users and the system.",
            77,
            "you may not read this server's journal",
        ),
        (
            "No journal files were opened due to insufficient permissions.",
            77,
            "you may not read this server's journal",
        ),
        ("", 69, "the journal has no line of spicetunneld.service that you may read"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_journal_that_tells_nothing(
    journal: Path, capsys: Output, form: list[str], said: str, code: int, reason: str
) -> None:
    """journalctl says so on stderr, and most often with exit code 0."""
    journal.write_text(f"#!/bin/sh\necho {said!r} >&2\n")
    assert run(["log", *form]) == code
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"spicetunnel: {reason}"
    assert hint.startswith("hint: ")


def test_journal_that_fails(journal: Path, capsys: Output) -> None:
    journal.write_text("#!/bin/sh\nprintf 'it broke\\033[2J\\n' >&2\nexit 1\n")
    assert run(["log"]) == 70
    said = capsys.readouterr().err
    assert said.endswith(
        "it broke\\x1b[2J\nspicetunnel: journalctl failed\nhint: see its message above\n"
    )


def test_no_journal(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no")
    assert run(["log"]) == 69
    said = "spicetunnel: journalctl is not installed\nhint: --file reads a log file\n"
    assert capsys.readouterr().err == said


def test_reader_that_leaves_stops_the_journal(
    journal: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is endless: we would wait for ever."""
    journal.write_text(f"#!/bin/sh\nwhile cat {journal.parent}/audit.log; do :; done\n")
    said: list[object] = []

    def leave(item: object, _in_json: bool) -> int:
        said.append(item)
        if len(said) == 3:
            raise BrokenPipeError
        return 1

    monkeypatch.setattr("spicetunnel.admin.log._said", leave)
    with pytest.raises(BrokenPipeError):
        run(["log"])


class Endless(io.RawIOBase):
    """A large log, made as it is read."""

    def __init__(self, visits: int) -> None:
        self._lines = self._written(visits)

    def _written(self, visits: int) -> Iterator[bytes]:
        for number in range(visits):
            session = f"{number:08x}"
            yield opened("09:00", session, ANNE, "vm1").encode() + b"\n"
            yield ended("09:30", session, ANNE, "vm1", reason="x" * 200).encode() + b"\n"

    def readline(self, _size: int | None = -1, /) -> bytes:
        return next(self._lines, b"")


def test_large_log_needs_little_memory() -> None:
    """Only open sessions are kept in memory."""
    tracemalloc.start()
    try:
        source: Any = Endless(10_000)
        assert sum(1 for _ in History().of(Entries(source))) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
