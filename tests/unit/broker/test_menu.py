"""`menu`: lists on demand, then one session, over one connection."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.unit.broker.server import Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def menu(server: Server) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "spicetunnel.gate", "--run-dir", str(server.directory)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "SSH_ORIGINAL_COMMAND": "menu --json"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def says(process: "subprocess.Popen[str]", line: str = "") -> dict[str, object]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    while not (answered := process.stdout.readline()).strip():  # the first one is empty
        assert answered, "the gate has ended"
    answer = json.loads(answered)
    assert isinstance(answer, dict)
    return answer


def states(answer: dict[str, object]) -> list[str]:
    return [row["state"] for row in answer["vms"]]  # type: ignore[attr-defined]


def test_fresh_lists_and_then_a_session(server: Server) -> None:
    server.vm("vm1")
    with menu(server) as gate:
        assert states(says(gate)) == ["free", "off"]
        assert server.other().gate("open --json vm1")["event"] == "ready"
        assert states(says(gate, "list --json\n")) == ["busy", "off"]
        ready = says(gate, "open --json --take-over --keep vm1\n")
        assert (ready["event"], ready["vm"]) == ("ready", "vm1")


def test_the_session_is_the_connections_only_one(server: Server) -> None:
    """After `open`, nothing is read from stdin any more."""
    server.vm("vm1")
    with menu(server) as gate:
        says(gate)
        assert says(gate, "open --json vm1\nopen --json vm2\n")["event"] == "ready"
        assert len(server.audit("open")) == 1


@pytest.mark.parametrize(
    "line",
    ["whoami\n", "open vm1\n", "list\x00\n", "menu --json\n", "open --json vm1;id\n", "x" * 999],
)
def test_any_other_line_is_refused_and_logged(server: Server, line: str) -> None:
    with menu(server) as gate:
        says(gate)
        refused = says(gate, line)
        assert (refused["event"], refused["code"]) == ("refused", 64)
        assert gate.wait(10) == 64
    wait_until(lambda: server.audit("command"), "the log line")


def test_it_ends_with_its_client(server: Server) -> None:
    with menu(server) as gate:
        says(gate)
        assert gate.stdin is not None
        gate.stdin.close()
        assert gate.wait(10) == 0
