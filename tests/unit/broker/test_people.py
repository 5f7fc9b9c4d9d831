"""An account that is not found may be hidden, because its directory does not answer."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from spicetunnel.broker import people as module
from spicetunnel.broker.people import Asker, AwayError, People
from spicetunnel.common.errors import NotPermittedError
from spicetunnel.policy.accounts import Account
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.vmmap import VmMap

if TYPE_CHECKING:
    from spicetunnel.broker.maps import MapStore

MAPS = cast("MapStore", SimpleNamespace(current=VmMap()))
ANNE = Identity(1000, "anne", frozenset({"anne", "staff"}))
OF_DIRECTORY = Account(ANNE, "/bin/sh", is_local=False)
LOCAL = Account(ANNE, "/bin/sh", is_local=True)
WITHOUT_STAFF = Identity(1000, "anne", frozenset({"anne"}))


class Directory:
    """Answers in the place of NSS; `now` is the account of everybody."""

    def __init__(self, now: Account | None) -> None:
        self.now = now
        self.asked = 0

    def __call__(self, _who: int | str) -> Account | None:
        self.asked += 1
        return self.now


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Directory:
    directory = Directory(OF_DIRECTORY)
    monkeypatch.setattr(module, "look_up", directory)
    return directory


async def known(people: People) -> Asker:
    """Anne, after she was looked up; the next look asks again."""
    asker = await people.asker(1000, None)
    people.forget(1000)
    return asker


def test_person_of_a_session_stays_who_they_were_while_the_directory_is_away(
    directory: Directory,
) -> None:
    async def run() -> None:
        people = People(MAPS)
        asker = await known(people)
        directory.now = None
        assert (await people.still(asker)).person == ANNE
        with pytest.raises(AwayError) as refused:
            await people.asker(1000, None)  # but nobody new gets in
        assert refused.value.exit_code == 75
        directory.now = OF_DIRECTORY
        assert (await people.asker(1000, None)).person == ANNE

    asyncio.run(run())


def test_patience_has_an_end(directory: Directory) -> None:
    async def run() -> None:
        people = People(MAPS, away=0.05)
        asker = await known(people)
        directory.now = None
        await people.still(asker)
        await asyncio.sleep(0.1)
        with pytest.raises(AwayError):
            await people.still(asker)

    asyncio.run(run())


def test_local_account_that_is_gone_is_gone(directory: Directory) -> None:
    async def run() -> None:
        directory.now = LOCAL
        people = People(MAPS)
        asker = await known(people)
        directory.now = None
        with pytest.raises(NotPermittedError):
            await people.still(asker)

    asyncio.run(run())


def test_account_that_was_never_there_is_not_permitted(directory: Directory) -> None:
    directory.now = None
    with pytest.raises(NotPermittedError):
        asyncio.run(People(MAPS).asker(1000, None))


@pytest.mark.parametrize(
    ("now", "groups"),
    [
        (Account(WITHOUT_STAFF, "/bin/sh", is_local=True, unnamed=1), ANNE.groups),
        (Account(WITHOUT_STAFF, "/bin/sh", is_local=True, unnamed=0), WITHOUT_STAFF.groups),
    ],
    ids=["a group has lost its name", "the person has lost the group"],
)
def test_group_that_cannot_be_named_is_not_lost(
    directory: Directory, now: Account, groups: frozenset[str]
) -> None:
    async def run() -> None:
        directory.now = LOCAL
        people = People(MAPS)
        asker = await known(people)
        directory.now = now
        assert (await people.still(asker)).person.groups == groups

    asyncio.run(run())


def test_who_is_looked_up_already_is_not_looked_up_twice(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow directory would else fill the threads with one person's requests."""
    answers = threading.Event()

    def slow(who: int | str) -> Account | None:
        answers.wait(10)
        return directory(who)

    monkeypatch.setattr(module, "look_up", slow)

    async def run() -> None:
        people = People(MAPS)
        asking = [asyncio.ensure_future(people.asker(1000, None)) for _ in range(50)]
        await asyncio.sleep(0.05)
        answers.set()
        await asyncio.gather(*asking)
        assert directory.asked == 1

    asyncio.run(run())


def test_directory_that_does_not_answer_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "look_up", lambda _who: time.sleep(0.3))
    with pytest.raises(AwayError):
        asyncio.run(People(MAPS).asker(1000, None))
