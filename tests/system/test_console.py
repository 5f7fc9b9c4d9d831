"""Who is at the console, read from a real systemd-logind after real logins through PAM."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from spicetunnel.broker.console import Console
from tests.stage.logind import DIRECTORY, FILES, Login, Logind
from tests.stage.process import Process
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.stage.people import Person
    from tests.stage.stage import Stage

SECONDS = 2
NOBODY: frozenset[int] = frozenset()

LOOK = """\
import pathlib, sys
from spicetunnel.broker.console import Console
print(*Console(pathlib.Path(sys.argv[1])).uids())
"""


@pytest.fixture
def logind(stage: Stage) -> Iterator[Logind]:
    with Logind() as logind:
        yield logind


@pytest.fixture
def console(logind: Logind) -> Console:
    return Console(FILES)


def wait_for(console: Console, *people: Person) -> None:
    """Wait until exactly these people are at the console."""
    wanted = {person.uid for person in people}
    wait_until(lambda: console.uids() == wanted, SECONDS, lambda: f"{wanted}, not {console.uids()}")


def session_file(login: Login) -> Path:
    return FILES / "sessions" / login.id


def test_nobody_is_at_the_console_before_the_first_login(console: Console) -> None:
    assert (FILES / "seats" / "seat0").is_file()
    assert console.uids() == NOBODY


def test_a_person_is_at_the_console_from_login_to_logout(
    logind: Logind, console: Console, alice: Person
) -> None:
    login = logind.login(alice)
    wait_for(console, alice)
    login.logout()
    wait_for(console)
    logind.end_scope(login)
    wait_until(lambda: not session_file(login).exists(), SECONDS, "logind to forget the session")
    assert console.uids() == NOBODY


def test_a_person_who_logs_out_but_leaves_a_process_is_not_at_the_console(
    logind: Logind, console: Console, alice: Person
) -> None:
    """logind still has the session as the seat's active one, in the state "closing"."""
    login = logind.login(alice)
    wait_for(console, alice)
    login.logout()
    wait_for(console)
    assert f"\nACTIVE={login.id}\n" in (FILES / "seats" / "seat0").read_text()
    assert {"ACTIVE=1", "STATE=closing"} <= set(session_file(login).read_text().splitlines())


def test_a_remote_login_is_not_at_the_console(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    logind.login(alice)
    far_away = logind.login(bob, remote_host="192.0.2.7")
    assert "REMOTE=1\n" in session_file(far_away).read_text()
    wait_for(console, alice)


def test_a_remote_session_does_not_keep_its_person_at_the_console(
    logind: Logind, console: Console, alice: Person
) -> None:
    at_the_seat = logind.login(alice)
    logind.login(alice, remote_host="192.0.2.7")
    wait_for(console, alice)
    at_the_seat.logout()
    wait_for(console)


def test_switching_sessions_changes_who_is_at_the_console(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    first = logind.login(alice)
    second = logind.login(bob)
    wait_for(console, bob)
    logind.activate(first)
    wait_for(console, alice)
    logind.activate(second)
    wait_for(console, bob)


def test_a_greeter_is_not_at_the_console(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    """bob is the display manager's user here. Its greeter becomes the active session."""
    first = logind.login(alice)
    wait_for(console, alice)
    logind.login(bob, session_class="greeter")
    wait_for(console)
    logind.activate(first)
    wait_for(console, alice)


def test_a_second_seat_counts_as_the_console_too(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    at_the_first = logind.login(alice)
    logind.login(bob, seat="seat1")
    wait_for(console, alice, bob)
    at_the_first.logout()
    wait_for(console, bob)


def test_the_brokers_user_can_read_who_is_at_the_console(
    logind: Logind, console: Console, stage: Stage, alice: Person
) -> None:
    """The installed project, run by the broker's unprivileged user, reads the same."""
    logind.login(alice)
    wait_for(console, alice)
    argv = [str(stage.programs / "python"), "-I", "-c", LOOK, str(FILES)]
    with Process(argv, DIRECTORY / "look", person=stage.service("broker")) as look:
        look.wait()
    assert look.tail() == str(alice.uid)


def test_a_restart_of_logind_changes_nothing(
    logind: Logind, console: Console, alice: Person
) -> None:
    """logind's files stay and are replaced atomically. alice is at the console at every moment."""
    logind.login(alice)
    wait_for(console, alice)

    async def restart() -> list[frozenset[int]]:
        seen = []
        restarting = asyncio.create_task(asyncio.to_thread(logind.restart))
        while not restarting.done():
            seen.append(console.uids())
            await asyncio.sleep(0)
        await restarting
        return seen

    assert set(asyncio.run(restart())) == {frozenset({alice.uid})}
    wait_for(console, alice)


def test_each_change_is_reported_within_two_seconds(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    """follow() reports login, switch, switch back and logout."""

    async def story() -> None:
        told = console.follow()
        async with soon(told, NOBODY):
            pass
        async with soon(told, {alice.uid}):
            first = logind.login(alice)
        async with soon(told, {bob.uid}):
            logind.login(bob)
        async with soon(told, {alice.uid}):
            logind.activate(first)
        async with soon(told, NOBODY):
            first.logout()

    asyncio.run(story())


@contextlib.asynccontextmanager
async def soon(
    told: AsyncIterator[frozenset[int]], wanted: set[int] | frozenset[int]
) -> AsyncIterator[None]:
    """Run the block, then wait until `told` yields `wanted`, perhaps after other values."""
    yield
    async with asyncio.timeout(SECONDS):
        async for uids in told:
            if uids == wanted:
                return
