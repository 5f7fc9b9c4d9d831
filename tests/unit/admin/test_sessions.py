"""`spicetunnel sessions`: who is at which VM, as a table, as JSON, and on --watch."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.admin.figures import clock, size, span
from tests.unit.admin.answering import HOSTILE, REFUSED, REFUSED_SAID, answering
from tests.unit.broker.server import Server, wait_until

HEAD = ["SESSION", "USER", "VM", "FROM", "SINCE", "UNTIL", "CH", "UP", "DOWN", "UP/S", "DOWN/S"]
Output = pytest.CaptureFixture[str]


def moment(**ago: float) -> str:
    return (datetime.now().astimezone() - timedelta(**ago)).isoformat(timespec="seconds")


def row(**changes: object) -> dict[str, Any]:
    return {
        "id": "1a2b3c4d",
        "user": "charlie",
        "vm": "vm1",
        "since": moment(days=30),
        "from": "192.0.2.7",
        "via": "",
        "channels": 7,
        "bytes_up": 1_234,
        "bytes_down": 45_300_000,
        "rate_up": 0,
        "rate_down": 120_000,
        "until": "",
        **changes,
    }


def told(*rows: dict[str, Any], more: bool = False) -> dict[str, Any]:
    return {"event": "sessions", "sessions": list(rows), "more": more}


def test_table(run_dir: Path, capsys: Output) -> None:
    boss = row(
        id="deadbeef", user="boss", since="2026-01-02T10:00:00+01:00", until=moment(days=-40)
    )
    first, last = boss["since"][:10], datetime.fromisoformat(boss["until"])
    with answering(run_dir, told(row(), boss)) as broker:
        assert run(["sessions", "--run-dir", broker.run_dir]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == HEAD
    sizes = ["7", "1.2k", "45M", "0", "120k"]
    shown = datetime.fromisoformat(row()["since"])
    charlies = ["1a2b3c4d", "charlie", "vm1", "192.0.2.7", f"{shown:%F}", *sizes]
    bosses = ["deadbeef", "boss", "vm1", "192.0.2.7", first, f"{last:%F}", *sizes]
    assert sorted(lines[1:3]) == sorted([charlies, bosses])
    assert lines[3] == ["2", "sessions"]


def test_usual_table_fits_into_80_columns(run_dir: Path, capsys: Output) -> None:
    usual = row(since=moment(minutes=1), until=moment(minutes=-1), **{"from": "192.168.100.107"})
    with answering(run_dir, told(usual)) as broker:
        assert run(["sessions", "--run-dir", broker.run_dir]) == 0
    said = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in said.splitlines()) <= 80
    assert said.endswith("1 session\n")


def test_json_has_all_that_the_broker_says(run_dir: Path, capsys: Output) -> None:
    rows = [row(id=f"{number:08x}") for number in range(3)]
    with answering(run_dir, told(*rows[:2], more=True), told(rows[2])) as broker:
        assert run(["sessions", "--json", "--run-dir", broker.run_dir]) == 0
        assert broker.asked == [{"v": 1, "op": "sessions"}]
    assert json.loads(capsys.readouterr().out) == {"sessions": rows}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nothing_controls_the_terminal(form: list[str], run_dir: Path, capsys: Output) -> None:
    bad = row(id=HOSTILE, user=HOSTILE, vm=HOSTILE, since=HOSTILE, until=HOSTILE)
    with answering(run_dir, told({**bad, "from": f"{HOSTILE}[bold]"})) as broker:
        assert run(["sessions", *form, "--run-dir", broker.run_dir]) == 0
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())
    assert "[bold]" in said


def test_no_sessions(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, told()) as broker:
        assert run(["sessions", "--run-dir", broker.run_dir]) == 0
        assert run(["sessions", "--json", "--run-dir", broker.run_dir]) == 0
    assert capsys.readouterr().out == 'no sessions\n{"sessions": []}\n'


def test_no_broker(run_dir: Path, capsys: Output) -> None:
    assert run(["sessions", "--run-dir", str(run_dir)]) == 69
    reason = f"the server's broker does not answer at {run_dir} (no such file or directory)"
    assert capsys.readouterr().err == f"spicetunnel: {reason}\nhint: is spicetunneld running?\n"


def test_refusal_of_the_broker(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, REFUSED) as broker:
        assert run(["sessions", "--run-dir", broker.run_dir]) == 77
    assert capsys.readouterr().err == REFUSED_SAID


@pytest.mark.parametrize(
    "answer",
    [{"event": "sessions"}, {"event": "sessions", "sessions": 1}, told(row(channels="7")), b"{"],
)
def test_malformed_answer(answer: dict[str, Any] | bytes, run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, answer) as broker:
        assert run(["sessions", "--run-dir", broker.run_dir]) == 70
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [([], "--watch needs a terminal"), (["--json"], "--watch draws for a person, --json does not")],
)
def test_watch_needs_a_terminal(more: list[str], reason: str, capsys: Output) -> None:
    assert run(["sessions", "--watch", *more, "--run-dir", "/no"]) == 64
    assert capsys.readouterr().err.startswith(f"spicetunnel: {reason}\nhint: leave ")


def test_with_a_real_broker(server: Server, capsys: Output) -> None:
    server.vm("vm1")
    server.open("vm1")
    assert run(["sessions", "--json", "--run-dir", str(server.directory)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sessions"]
    assert (found["user"], found["vm"]) == (server.user, "vm1")


class Screen:
    """A terminal on which the command runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process, self._terminal, self._shown = process, terminal, b""

    def shows(self, words: str) -> None:
        """Wait until the words appear after those that the last call waited for."""
        deadline = time.monotonic() + 15
        while words.encode() not in self._shown:
            assert time.monotonic() < deadline, self._shown
            self._shown += os.read(self._terminal, 65536)
        self._shown = b""


@contextmanager
def watching(run_dir: Path, **environment: str) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    code = "from spicetunnel.admin import cli, sessions\nsessions.INTERVAL = 0.1\ncli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "sessions", "--watch", "--run-dir", str(run_dir)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # A test runner in the background has SIGINT ignored, and all its children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    os.close(theirs)
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_watch_follows_over_a_restart_until_ctrl_c(server: Server) -> None:
    with watching(server.directory) as screen:
        screen.shows("no sessions")
        server.vm("vm1")
        gate = server.open("vm1")
        screen.shows("1 session")
        gate.process.terminate()
        screen.shows("no sessions")
        server.kill_broker()
        screen.shows("looking again")
        server.start()
        screen.shows("no sessions")
        screen.process.send_signal(signal.SIGINT)
        assert wait_until(lambda: screen.process.poll() is not None, "its end")
        assert screen.process.returncode == 0


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0"),
        (999, "999"),
        (999.4, "999"),
        (1000, "1.0k"),
        (9_949, "9.9k"),
        (9_960, "10k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (45_300_000, "45M"),
        (999_500_000, "1.0G"),
        (5e12, "5.0T"),
        (2**63, "9223372.0T"),
    ],
)
def test_size(count: float, words: str) -> None:
    assert size(count) == words


def test_span_and_clock() -> None:
    assert [span(x) for x in (0, 59.9, 3661, 90061, 86400)] == ["0s", "59s", "1h1m", "1d1h", "1d"]
    now = datetime(2026, 12, 24, 18).astimezone()
    ago = (timedelta(hours=1), timedelta(days=1), timedelta(days=6), timedelta(days=7))
    words = ["17:00", "Wed 18:00", "Fri 18:00", "2026-12-17"]
    assert [clock(now - each, now) for each in ago] == words
