"""A lying server: it can end its session, and not flood the person."""

import os

import pytest
from spice_connect import flood

from tests.unit.client.fakes import Stage

FOR_EVER = "while True:\n    "


def test_a_flood_of_notices_ends_the_session(stage: Stage) -> None:
    stage.ssh(f"listener = ready()\n{FOR_EVER}say('notice', reason='x' * 50000, hint='y')\n")
    code, _, err = stage.run("--no-viewer", "vm1")
    assert code == os.EX_PROTOCOL
    *_, told, hint = err.splitlines()
    assert told == "spice-connect: kvm sends too many messages, so the session ends"
    assert hint.startswith("hint: ")
    assert len(err) < 100_000


def test_a_flood_of_restarts_starts_few_viewers(stage: Stage) -> None:
    stage.ssh(
        f"listener = ready()\n{FOR_EVER}say('waiting', reason='', hint='')\n    "
        "say('ready', session='00000001', title='')\n"
    )
    code, _, err = stage.run("vm1")
    assert code == os.EX_PROTOCOL
    assert "started again and again, so the session ends\n" in err
    assert len(stage.all_noted("viewer")) <= 10


def test_the_bounds_hold_over_reconnections(stage: Stage) -> None:
    """Else a server that hangs up each time would begin anew with each connection."""
    talk = "for n in range(25):\n    say('notice', reason=str(n), hint='')\n"
    stage.ssh(f"listener = ready()\n{talk}sys.exit(255)\n")
    code, _, err = stage.run("--no-viewer", "vm1", patch="reconnect.PAUSES = (0.01,)")
    assert code == os.EX_PROTOCOL
    assert len(stage.all_noted("ssh")) == 3
    assert "kvm sends too many messages" in err


def test_a_flood_of_lists_ends_the_asking(stage: Stage) -> None:
    stage.ssh(f"{FOR_EVER}say('vms', vms=[])\n")
    code, _, err = stage.run()
    assert code == os.EX_PROTOCOL
    assert "kvm sends too many messages" in err


def test_other_output_is_not_limited(stage: Stage) -> None:
    """A start-up file may greet at length. It is not shown."""
    stage.ssh("print('hello\\n' * 5000)\nlistener = ready()\nhold()\n")
    stage.viewer("")
    assert stage.run("vm1") == (0, "", "")


def test_an_allowance_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    allowance = flood.Allowance(3, 2.0)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now += 2
    assert [allowance.take() for _ in range(2)] == [True, False]
    now += 3600
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_events_of_a_newer_server_are_not_limited(stage: Stage) -> None:
    stage.ssh("listener = ready()\nfor n in range(500):\n    say('figures', n=n)\nhold()\n")
    stage.viewer("time.sleep(0.3)\n")
    assert stage.run("vm1") == (0, "", "")
