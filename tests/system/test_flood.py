"""A person who floods the broker's sockets takes it from nobody else. The promised limits are 2 s,
which `script/bench flood` measures; here five times as much is enough.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from spicetunnel.admin.broker import ask_rows
from tests.refusals.attacker import local_socket, wait_for_socket
from tests.stage import flooders
from tests.stage.broker import RUN_DIR, TUNNEL
from tests.stage.command import run
from tests.stage.install import PYTHON
from tests.stage.machine import LOGS
from tests.stage.process import Process
from tests.stage.rawvm import raw_map, raw_session
from tests.stage.spice import DISPLAY
from tests.stage.stage import MAP
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.stage import Stage

LIMIT = 10.0  # seconds
CONTROL = RUN_DIR / "control.sock"
#: Each with a person of its own: who floods is shut out for a while.
LOCAL = [
    ("connect-stream", TUNNEL, "mallory1"),
    ("hold-stream", TUNNEL, "mallory2"),
    ("connect-packet", CONTROL, "mallory3"),
    ("hold-packet", CONTROL, "mallory4"),
]


@contextlib.contextmanager
def local_flood(kind: str, path: Path, person: Person | None) -> Iterator[None]:
    with contextlib.ExitStack() as running:
        for number in range(8):
            argv = [PYTHON, "-I", "-c", flooders.CODE, kind, str(path)]
            flooder = Process(argv, LOGS / f"flooder-{number}", person=person)
            running.callback(end, flooder)
        time.sleep(1)
        yield


def end(flooder: Process) -> None:
    assert flooder.alive(), f"there was no flood: {flooder.tail()}"
    flooder.kill()


@contextlib.contextmanager
def forwarded_flood(stage: Stage, person: Person, kind: str) -> Iterator[None]:
    """Through eight ssh of a person who may log in, and has no session."""
    with contextlib.ExitStack() as running:
        for number in range(8):
            near = local_socket(f"flood-{number}")
            ssh = stage.gate_ssh(person, "", "-N", forwards=(f"{near}:{TUNNEL}",))
            running.callback(ssh.kill)
            wait_for_socket(near, ssh)
            argv = [PYTHON, "-I", "-c", flooders.CODE, kind, str(near)]
            running.callback(end, Process(argv, LOGS / f"flooder-{number}"))
        time.sleep(1)
        yield


def assert_others_feel_little(
    stage: Stage, alice: Person, flood: contextlib.AbstractContextManager[None]
) -> None:
    """A channel opens, `kick` is answered, and an edit of the map cuts, within the limit each."""
    both = raw_map(MAP, "raw1", "raw2")
    assert stage.set_map(both)
    with raw_session(stage, alice, "raw1") as one, raw_session(stage, alice, "raw2") as two:
        one.channel()
        viewer, _ = two.channel()
        with flood:
            started = time.monotonic()
            one.channel(DISPLAY)
            assert time.monotonic() - started < LIMIT
            started = time.monotonic()
            assert ask_rows(str(RUN_DIR), "kick", key="kicked", vm="raw1", user="", session="")
            assert time.monotonic() - started < LIMIT
            started = time.monotonic()
            stage.write_map(raw_map(MAP, "raw1"))
            viewer.settimeout(LIMIT)
            assert viewer.recv(1) == b""
            assert time.monotonic() - started < LIMIT
    wait_until(lambda: not stage.relay.sessions(), 10, "the sessions to end")


@pytest.mark.parametrize(("kind", "path", "name"), LOCAL)
def test_flood_of_a_local_user(
    stage: Stage, broker: Broker, alice: Person, kind: str, path: Path, name: str
) -> None:
    mallory = stage.person(name, gateway=False)
    mark = broker.mark()
    assert_others_feel_little(stage, alice, local_flood(kind, path, mallory))
    lines = [line for line in broker.audit(mark) if line.get("uid") == mallory.uid]
    assert 0 < len(lines) < 50  # of tens of thousands of refusals


@pytest.mark.parametrize("kind", ["connect-stream", "hold-stream"])
@pytest.mark.usefixtures("broker")
def test_flood_through_ssh_of_a_person_with_a_key(stage: Stage, alice: Person, kind: str) -> None:
    mallory = stage.person(f"mallory-{kind[0]}")
    assert_others_feel_little(stage, alice, forwarded_flood(stage, mallory, kind))


def test_local_user_who_floods_is_shut_out_for_a_while(stage: Stage, broker: Broker) -> None:
    assert stage.set_map()
    mallory, mark = stage.person("mallory5", gateway=False), broker.mark()
    with local_flood("connect-stream", TUNNEL, mallory):
        broker.wait_audit(lambda line: "shut out for 10 s" in str(line.get("reason")), since=mark)
        assert not may_connect(mallory)
    wait_until(lambda: may_connect(mallory), 30, "the kernel to let them in again")


def may_connect(person: Person) -> bool:
    """Whether the kernel lets this user connect."""
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(TUNNEL)!r})"
    try:
        run("setpriv", f"--reuid={person.uid}", "--clear-groups", PYTHON, "-I", "-c", code)
    except StageError as error:
        if "Permission denied" not in str(error):
            raise
        return False
    return True
