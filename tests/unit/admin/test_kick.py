"""`spicetunnel kick`: what it asks the broker, and what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.cli import run
from tests.unit.admin.answering import HOSTILE, REFUSED, REFUSED_SAID, answering
from tests.unit.broker.server import Server

Output = pytest.CaptureFixture[str]
NAMED_NOTHING = {"session": "", "user": "", "vm": "", "reason": ""}


def kicked(*ids: str) -> dict[str, Any]:
    rows = [{"id": each, "user": "anne", "vm": "vm2"} for each in ids]
    return {"event": "kicked", "kicked": rows, "more": False}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["1a2b3c4d"], {"session": "1a2b3c4d"}),
        (["--user", "anne"], {"user": "anne"}),
        (["--vm", "vm2", "--reason", "a word"], {"vm": "vm2", "reason": "a word"}),
        (["1a2b3c4d", "--user", "a", "--vm", "v"], {"session": "1a2b3c4d", "user": "a", "vm": "v"}),
    ],
)
def test_what_is_asked(
    words: list[str], asked: dict[str, str], run_dir: Path, capsys: Output
) -> None:
    with answering(run_dir, kicked("1a2b3c4d", "deadbeef")) as broker:
        assert run(["kick", *words, "--run-dir", broker.run_dir]) == 0
        assert broker.asked == [{"v": 1, "op": "kick", **NAMED_NOTHING, **asked}]
    assert capsys.readouterr().out == (
        "ended: 1a2b3c4d of anne at vm2\nended: deadbeef of anne at vm2\n"
    )


@pytest.mark.parametrize(("form", "out"), [([], ""), (["--json"], '{"sessions": []}\n')])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vm", "vm1"], "no session at vm 'vm1'"),
        (["--user", "nobodyx"], "no session of user 'nobodyx'"),
        (["1a2b3c4d"], "no session '1a2b3c4d'"),
        (["--user", "nobodyx", "--vm", "vm1"], "no session of user 'nobodyx' at vm 'vm1'"),
    ],
)
def test_no_such_session(
    form: list[str], out: str, words: list[str], said: str, run_dir: Path, capsys: Output
) -> None:
    with answering(run_dir, kicked()) as broker:
        assert run(["kick", *words, *form, "--run-dir", broker.run_dir]) == 69
    shown = capsys.readouterr()
    assert shown.out == out
    reason, hint = shown.err.splitlines()
    assert reason == f"spicetunnel: {said}"
    assert hint == "hint: 'spicetunnel sessions' shows who is there"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "nothing says whose session to end"),
        (["vm1"], "not a session's name: 'vm1'"),
        ([HOSTILE], "not a session's name: 'x\\n\\x1b"),
        (["--vm", "../x"], "not a vm's name: '../x'"),
        (["--vm", "vm1", "--reason", "x" * 201], "--reason is longer than 200 characters"),
        (["--reason", "x"], "nothing says whose session to end"),
    ],
)
def test_wrong_use(words: list[str], reason: str, capsys: Output) -> None:
    assert run(["kick", *words, "--run-dir", "/no"]) == 64
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"spicetunnel: {reason}")
    assert first.isprintable()
    assert second.startswith("hint: ")


def test_refusal_of_the_broker(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, REFUSED) as broker:
        assert run(["kick", "--vm", "vm1", "--run-dir", broker.run_dir]) == 77
    assert capsys.readouterr().err == REFUSED_SAID


@pytest.mark.parametrize(
    "answer",
    [{"event": "kicked"}, {"event": "kicked", "kicked": 1}, {"event": "kicked", "kicked": [{}]}],
)
def test_malformed_answer(answer: dict[str, Any], run_dir: Path) -> None:
    with answering(run_dir, answer) as broker:
        assert run(["kick", "--vm", "vm1", "--run-dir", broker.run_dir]) == 70


def test_with_a_real_broker(server: Server, capsys: Output) -> None:
    server.vm("vm1")
    gate = server.open("vm1")
    session = server.audit("open")[0]["session"]
    words = ["--vm", "vm1", "--run-dir", str(server.directory), "--json"]
    assert run(["kick", *words, "--reason", "x" * 200]) == 0
    assert json.loads(capsys.readouterr().out) == {"sessions": [session]}
    assert str(gate.says()["reason"]).endswith("x" * 200)
    assert gate.exit_code() == 77
