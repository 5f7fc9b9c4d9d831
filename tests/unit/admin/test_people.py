"""Whom a name means: as the broker takes it, with and without an account on this server."""

import asyncio
import pwd
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from spicetunnel.admin.people import NoUserError, identify, shared_accounts
from spicetunnel.broker.people import People
from spicetunnel.policy.vmmap import VmMap

if TYPE_CHECKING:
    from spicetunnel.broker.maps import MapStore

ALONE = VmMap()
SHARED = VmMap.model_validate({"delegates": ["daemon", "spice"]})


@pytest.mark.parametrize("vm_map", [ALONE, SHARED])
def test_a_person_with_an_account(vm_map: VmMap) -> None:
    person = identify("games", vm_map)
    assert (person.uid, person.user) == (pwd.getpwnam("games").pw_uid, "games")
    assert "games" in person.groups
    assert shared_accounts(person, vm_map) == ()


def test_a_person_without_one_comes_through_a_shared_account() -> None:
    person = identify("charlie", SHARED)
    assert person.user == "charlie"
    assert not person.groups
    assert shared_accounts(person, SHARED) == ("daemon", "spice")


@pytest.mark.parametrize("name", ["games", "charlie", "root"])
def test_the_broker_takes_a_shared_accounts_people_for_the_same(name: str) -> None:
    people = People(cast("MapStore", SimpleNamespace(current=SHARED)))
    asker = asyncio.run(people.asker(pwd.getpwnam("daemon").pw_uid, "192.0.2.7", name))
    assert asker.person == identify(name, SHARED)
    assert (asker.via, asker.doubt) == ("daemon", "")


@pytest.mark.parametrize("name", ["no-such-user", "", "a\0b", "\x1b[2J", "\udcff"])
def test_a_name_that_nobody_has(name: str) -> None:
    with pytest.raises(NoUserError) as raised:
        identify(name, ALONE)
    assert raised.value.exit_code == 67
    assert raised.value.reason.startswith("no user '")
    assert raised.value.reason.isprintable()
    assert "getent" in raised.value.hint


@pytest.mark.parametrize("name", ["", "a b", "-x", "a\0b", "\x1b[2J", "\udcff", "a" * 65, "DOM\\a"])
def test_a_name_that_no_key_or_certificate_can_have(name: str) -> None:
    """The gate's --as does not take it."""
    with pytest.raises(NoUserError):
        identify(name, SHARED)
