"""`spicetunnel status`: words for a person, an exit code for monitoring."""

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin import service
from spicetunnel.admin.cli import run
from spicetunnel.admin.service import Service
from tests.unit.admin.answering import HOSTILE, REFUSED, REFUSED_SAID, answering
from tests.unit.broker.server import Server, wait_until

Output = pytest.CaptureFixture[str]
LOADED = (datetime.now().astimezone() - timedelta(days=30)).isoformat(timespec="seconds")
WELL: dict[str, Any] = {
    "version": "1.2.3",
    "started": "2026-11-20T12:00:00+01:00",
    "uptime": 266_400,
    "sessions": 3,
    "channels": 21,
    "orphans": 0,
    "sockets": [
        {"path": "/run/spicetunnel/control.sock", "ok": True},
        {"path": "/run/spicetunnel/tunnel.sock", "ok": True},
    ],
    "relay": {"ok": True, "error": ""},
    "map": {
        "file": "/etc/spicetunnel/vms.yaml",
        "age": 3700,
        "loaded": LOADED,
        "vms": 12,
        "grants": 40,
        "ok": True,
        "error": "",
        "errors": 0,
    },
    "vms": {"running": 10, "off": 2, "unreachable": 0, "unreachable_names": []},
}
WELL_SAID = f"""\
ok: broker and relay are well
  broker    version 1.2.3, up 3d2h
  sessions  3, with 21 channels
  map       /etc/spicetunnel/vms.yaml: 12 vms, 40 grants, in force since
            {LOADED[:10]}
  changed   1h1m ago
  vms       10 running, 2 off
  relay     ready
  sockets   /run/spicetunnel/control.sock, /run/spicetunnel/tunnel.sock
"""


def found(**changes: Any) -> dict[str, Any]:
    """A status with `part_key=value` changed."""
    status = copy.deepcopy(WELL)
    for name, value in changes.items():
        first, _, key = name.partition("_")
        if first in {"map", "vms"}:
            status[first][key] = value
        else:
            status[name] = value
    return {"event": "status", "status": status}


REFUSED_MAP = {"map_ok": False, "map_error": "vms.yaml:3:5: what is this", "map_errors": 3}
GONE = [WELL["sockets"][0], {**WELL["sockets"][1], "ok": False}]

# (changes, exit code, lines of the output, hint)
CASES: list[tuple[dict[str, Any], int, list[str], str]] = [
    (
        REFUSED_MAP,
        78,
        [
            "trouble: the map was refused, and the one before is in force",
            "  refused   vms.yaml:3:5: what is this (and 2 more)",
        ],
        "'spicetunnel check' names every problem",
    ),
    (
        {**REFUSED_MAP, "map_errors": 1, "map_age": None},
        78,
        ["  refused   vms.yaml:3:5: what is this"],
        "'spicetunnel check' names every problem",
    ),
    (
        {"sockets": GONE, **REFUSED_MAP},
        69,
        ["trouble: /run/spicetunnel/tunnel.sock is gone: nobody gets in"],
        "restart spicetunneld; running sessions go on",
    ),
    (
        {"relay": {"ok": False, "error": "the server's relay does not answer"}, **REFUSED_MAP},
        69,
        [
            "trouble: nobody can open a session: the server's relay does not answer",
            "  relay     the server's relay does not answer",
        ],
        "start spicetunnel-relay; running sessions go on",
    ),
    (
        {"vms_unreachable": 2, "vms_unreachable_names": ["vm7", "vm8"]},
        69,
        [
            "trouble: the broker may not open the socket of 2 vms",
            "  vms       10 running, 2 off, 2 unreachable: vm7, vm8",
        ],
        "see their owner, group and mode, and those above them",
    ),
    ({"orphans": 2}, 0, ["  sessions  3, with 21 channels; 2 more wait for their gates"], ""),
    ({"vms_running": 0, "vms_off": 0}, 0, ["  vms       none"], ""),
]


def test_all_is_well(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, found()) as broker:
        assert run(["status", "--run-dir", broker.run_dir]) == 0
    said = capsys.readouterr()
    assert said.out == WELL_SAID
    assert said.err == ""


@pytest.mark.parametrize(("changes", "code", "lines", "hint"), CASES)
def test_exit_code_and_words(
    changes: dict[str, Any], code: int, lines: list[str], hint: str, run_dir: Path, capsys: Output
) -> None:
    with answering(run_dir, found(**changes)) as broker:
        assert run(["status", "--run-dir", broker.run_dir]) == code
        said = capsys.readouterr()
        assert run(["status", "--json", "--run-dir", broker.run_dir]) == code
    assert set(lines) <= set(said.out.splitlines())
    assert said.err == (f"hint: {hint}\n" if hint else "")
    assert json.loads(capsys.readouterr().out) == found(**changes)["status"]


@pytest.mark.parametrize(
    ("known", "lines", "hint"),
    [
        (
            Service("", "", ""),
            [],
            "'journalctl -u spicetunneld' has its words; systemctl starts it",
        ),
        (
            Service("failed failed, exit code 78", "vms.yaml:3:5: what is this", "did you mean x?"),
            ["  service   failed failed, exit code 78", "  it said   vms.yaml:3:5: what is this"],
            "did you mean x?",
        ),
    ],
)
def test_no_broker(
    run_dir: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    known: Service,
    lines: list[str],
    hint: str,
) -> None:
    monkeypatch.setattr("spicetunnel.admin.status.service", lambda: known)
    assert run(["status", "--run-dir", str(run_dir)]) == 69
    said = capsys.readouterr()
    first, *others = said.out.splitlines()
    assert first.startswith("trouble: the server's broker does not answer")
    assert others == lines
    assert said.err == f"hint: {hint}\n"


def test_last_words_are_the_last_ones_and_harmless() -> None:
    lines = ["spicetunneld: old", '{"event": "start"}', "spicetunneld: \x1b[31mnew", "hint: do it"]
    assert service._last_words(lines) == ("\\x1b[31mnew", "do it")
    assert service._last_words(['{"event": "start"}']) == ("", "")


def test_refusal_of_the_broker(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, REFUSED) as broker:
        assert run(["status", "--run-dir", broker.run_dir]) == 77
    assert capsys.readouterr().err == REFUSED_SAID


def test_nothing_controls_the_terminal(run_dir: Path, capsys: Output) -> None:
    bad = {"map_file": HOSTILE, "map_error": HOSTILE, "map_ok": False, "version": HOSTILE}
    names = {"vms_unreachable_names": [HOSTILE]}
    with answering(run_dir, found(**bad, **names)) as broker:
        assert run(["status", "--run-dir", broker.run_dir]) == 78
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("change", [{"sockets": 1}, {"map": 1}, {"vms_off": -1}, {"map_ok": "no"}])
def test_malformed_answer(change: dict[str, Any], run_dir: Path) -> None:
    answer = found(**change) if "map" not in change else {"event": "status", "status": {"map": 1}}
    with answering(run_dir, answer) as broker:
        assert run(["status", "--run-dir", broker.run_dir]) == 70


def test_with_a_real_broker_whose_map_breaks(server: Server, capsys: Output) -> None:
    words = ["status", "--run-dir", str(server.directory)]
    assert run(words) == 0
    good = server.map.read_text()
    server.map.write_text("vms: [")
    wait_until(lambda: run(words) == 78, "the refusal")
    server.map.write_text(good)
    wait_until(lambda: run(words) == 0, "the good map")
    capsys.readouterr()
    server.kill_broker()
    assert run(words) == 69
