"""`spicetunnel grant`, `revoke`, `grants`: what is asked of the broker, and what is said."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.common.protocol import Message
from tests.unit.admin.answering import Answering, answering

Output = pytest.CaptureFixture[str]

GIVEN: dict[str, Any] = {
    "id": "3f2a0000",
    "user": "anne",
    "vm": "vm2",
    "since": "2026-11-24T12:00:00Z",
    "until": "2026-11-24T14:00:00Z",
    "by": "root",
    "reason": "the printer",
}
LOCAL = datetime.fromisoformat(GIVEN["until"]).astimezone()


@pytest.fixture
def broker(run_dir: Path, office: str) -> Iterator[Answering]:
    with answering(run_dir) as broker:
        yield broker


def granted(broker: Answering, **more: object) -> None:
    broker.answers = [{"event": "granted", "grant": GIVEN | more}]


@pytest.mark.parametrize(
    ("span", "seconds"), [("2h", 7200), ("90s", 90), ("1h30m", 5400), ("3d", 259200)]
)
def test_grant_asks_and_says_until_when(
    broker: Answering, capsys: Output, span: str, seconds: int
) -> None:
    granted(broker)
    words = [
        "grant",
        "anne",
        "vm2",
        "--for",
        span,
        "--reason",
        "the printer",
        "--run-dir",
        broker.run_dir,
    ]
    assert run(words) == 0
    assert broker.asked == [
        {
            "v": 1,
            "op": "grant",
            "user": "anne",
            "vm": "vm2",
            "seconds": seconds,
            "reason": "the printer",
        }
    ]
    end = f"{LOCAL:%a} 2026-11-24 at {LOCAL:%H:%M}:00 ({LOCAL:%Z})"
    assert capsys.readouterr() == (f"anne may use 'vm2' until {end}: grant 3f2a0000\n", "")


def test_warning_for_a_user_without_an_account(broker: Answering, capsys: Output) -> None:
    granted(broker, user="zoe")
    assert run(["grant", "zoe", "vm2", "--for", "2h", "--run-dir", broker.run_dir]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("zoe may use 'vm2' until ")
    assert said.err == (
        "spicetunnel: no user 'zoe' on this server\n"
        "hint: only somebody who comes through a shared account can be of that name\n"
    )


@pytest.mark.parametrize("span", ["", "2", "2 h", "0s", "-1h", "2h1d", "forever"])
def test_grant_needs_a_span_of_time(broker: Answering, capsys: Output, span: str) -> None:
    assert run(["grant", "anne", "vm2", f"--for={span}", "--run-dir", broker.run_dir]) == 64
    assert broker.asked == []
    assert capsys.readouterr().err == (
        f"spicetunnel: --for must be a span of time, not '{span}'\n"
        "hint: write it like 90s, 10m, 2h, 3d or 1h30m\n"
    )


def test_grant_needs_for(capsys: Output) -> None:
    assert run(["grant", "anne", "vm2"]) == 64
    assert "missing option '--for'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["3f2a0000"], {"grant": "3f2a0000"}),
        (["anne", "vm2"], {"user": "anne", "vm": "vm2"}),
    ],
)
def test_revoke(broker: Answering, capsys: Output, words: list[str], asked: Message) -> None:
    broker.answers = [{"event": "revoked", "grants": ["3f2a0000", "3f2a0001"]}]
    assert run(["revoke", *words, "--run-dir", broker.run_dir]) == 0
    assert broker.asked == [{"v": 1, "op": "revoke", **asked}]
    assert capsys.readouterr() == ("revoked 3f2a0000\nrevoked 3f2a0001\n", "")


@pytest.mark.parametrize("words", [[], ["anne", "vm2", "vm3"]])
def test_revoke_needs_one_or_two_words(capsys: Output, words: list[str]) -> None:
    assert run(["revoke", *words]) == 64
    assert capsys.readouterr().err == (
        "spicetunnel: name a grant, or a user and a vm\nhint: 'spicetunnel grants' shows them\n"
    )


def test_grants_are_shown_in_the_order_of_their_ends(broker: Answering, capsys: Output) -> None:
    later = {"id": "3f2a0001", "user": "zoe", "until": "2026-11-25T14:00:00Z", "reason": ""}
    rows = [GIVEN | later, GIVEN]
    broker.answers = [
        {"event": "grants", "grants": rows[:1], "more": True},
        {"event": "grants", "grants": rows[1:], "more": False},
    ]
    assert run(["grants", "--run-dir", broker.run_dir]) == 0
    assert capsys.readouterr().out == (
        "ID        USER  VM   UNTIL             BY    REASON\n"
        f"3f2a0000  anne  vm2  2026-11-24 {LOCAL:%H:%M}  root  the printer\n"
        f"3f2a0001  zoe   vm2  2026-11-25 {LOCAL:%H:%M}  root\n"
    )
    assert run(["grants", "--json", "--run-dir", broker.run_dir]) == 0
    assert json.loads(capsys.readouterr().out) == {"grants": rows}


def test_no_grants(broker: Answering, capsys: Output) -> None:
    broker.answers = [{"event": "grants", "grants": [], "more": False}]
    assert run(["grants", "--run-dir", broker.run_dir]) == 0
    assert run(["grants", "--json", "--run-dir", broker.run_dir]) == 0
    assert capsys.readouterr().out == 'there are no temporary grants\n{"grants": []}\n'


@pytest.mark.parametrize(
    "words", [["grant", "anne", "vm2", "--for", "2h"], ["revoke", "3f2a0000"], ["grants"]]
)
def test_refusal_of_the_broker(broker: Answering, capsys: Output, words: list[str]) -> None:
    reason, hint = "this is for the admins of this server", "they are root"
    broker.answers = [{"event": "refused", "code": 77, "reason": reason, "hint": hint}]
    assert run([*words, "--run-dir", broker.run_dir]) == 77
    assert capsys.readouterr() == ("", f"spicetunnel: {reason}\nhint: {hint}\n")


@pytest.mark.parametrize(
    "words", [["grant", "anne", "vm2", "--for", "2h"], ["revoke", "3f2a0000"], ["grants"]]
)
def test_without_a_broker(tmp_path: Path, capsys: Output, words: list[str]) -> None:
    assert run([*words, "--run-dir", str(tmp_path)]) == 69
    assert "hint: is spicetunneld running?" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"reason": "\x1b[2J"}, {"id": "x"}, {"until": ""}])
def test_malformed_grant_does_not_reach_the_terminal(
    broker: Answering, capsys: Output, change: dict[str, object]
) -> None:
    granted(broker, **change)
    assert run(["grant", "anne", "vm2", "--for", "2h", "--run-dir", broker.run_dir]) == 70
    broker.answers = [{"event": "grants", "grants": [GIVEN | change], "more": False}]
    assert run(["grants", "--run-dir", broker.run_dir]) == 70
    assert capsys.readouterr() == (
        "",
        "spicetunnel: the broker's answer is not a temporary grant\n" * 2,
    )
