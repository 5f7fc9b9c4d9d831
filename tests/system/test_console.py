"""Who is at the console, as a real systemd-logind tells it after real logins through PAM."""

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
    """Until just these are at the console."""
    wanted = {person.uid for person in people}
    wait_until(lambda: console.uids() == wanted, SECONDS, lambda: f"{wanted}, not {console.uids()}")


def session_file(login: Login) -> Path:
    return FILES / "sessions" / login.id


def test_nobody_is_there_before_the_first_login(console: Console) -> None:
    assert (FILES / "seats" / "seat0").is_file()
    assert console.uids() == NOBODY


def test_who_logs_in_at_the_seat_is_at_the_console_until_the_logout(
    logind: Logind, console: Console, alice: Person
) -> None:
    login = logind.login(alice)
    wait_for(console, alice)
    login.logout()
    wait_for(console)
    logind.end_scope(login)
    wait_until(lambda: not session_file(login).exists(), SECONDS, "logind to forget the session")
    assert console.uids() == NOBODY


def test_who_logs_out_and_leaves_something_running_is_gone(
    logind: Logind, console: Console, alice: Person
) -> None:
    """The session is then still the seat's active one, while it is closing."""
    login = logind.login(alice)
    wait_for(console, alice)
    login.logout()
    wait_for(console)
    assert f"\nACTIVE={login.id}\n" in (FILES / "seats" / "seat0").read_text()
    assert {"ACTIVE=1", "STATE=closing"} <= set(session_file(login).read_text().splitlines())


def test_who_logs_in_from_elsewhere_is_not(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    logind.login(alice)
    far_away = logind.login(bob, remote_host="192.0.2.7")
    assert "REMOTE=1\n" in session_file(far_away).read_text()
    wait_for(console, alice)


def test_a_far_session_of_the_same_person_does_not_keep_them_there(
    logind: Logind, console: Console, alice: Person
) -> None:
    at_the_seat = logind.login(alice)
    logind.login(alice, remote_host="192.0.2.7")
    wait_for(console, alice)
    at_the_seat.logout()
    wait_for(console)


def test_switching_the_seat_hands_it_over_and_back(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    first = logind.login(alice)
    second = logind.login(bob)
    wait_for(console, bob)
    logind.activate(first)
    wait_for(console, alice)
    logind.activate(second)
    wait_for(console, bob)


def test_a_greeter_at_the_seat_is_nobody(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    """bob plays the display manager's own user: alice has left the seat to it."""
    first = logind.login(alice)
    wait_for(console, alice)
    logind.login(bob, session_class="greeter")
    wait_for(console)
    logind.activate(first)
    wait_for(console, alice)


def test_who_sits_at_a_second_seat_is_at_the_console_too(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    at_the_first = logind.login(alice)
    logind.login(bob, seat="seat1")
    wait_for(console, alice, bob)
    at_the_first.logout()
    wait_for(console, bob)


def test_the_brokers_user_sees_the_same(
    logind: Logind, console: Console, stage: Stage, alice: Person
) -> None:
    """An account without any right of its own, and the project as it is installed."""
    logind.login(alice)
    wait_for(console, alice)
    argv = [str(stage.programs / "python"), "-I", "-c", LOOK, str(FILES)]
    with Process(argv, DIRECTORY / "look", person=stage.service("broker")) as look:
        look.wait()
    assert look.tail() == str(alice.uid)


def test_a_restart_of_logind_throws_nobody_out(
    logind: Logind, console: Console, alice: Person
) -> None:
    """Its files outlive it, and are never half written: not for one moment is the seat empty."""
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


def test_each_change_is_told_within_two_seconds(
    logind: Logind, console: Console, alice: Person, bob: Person
) -> None:
    """Login, switch, switch back, logout, to whoever follows."""

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
    """What the block does makes `told` tell `wanted`, perhaps after something in between."""
    yield
    async with asyncio.timeout(SECONDS):
        async for uids in told:
            if uids == wanted:
                return
