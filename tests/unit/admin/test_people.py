"""The person behind a name, as the broker finds them, with an account on this server or without."""

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from spicetunnel.admin import people
from spicetunnel.admin.people import NoUserError, identify, shared_accounts
from spicetunnel.broker import people as broker_people
from spicetunnel.policy.accounts import Account
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.vmmap import VmMap

if TYPE_CHECKING:
    from spicetunnel.broker.maps import MapStore

ANNE = Identity(1000, "anne", frozenset({"anne", "staff"}))
SPICE = Identity(1001, "spice", frozenset({"spice"}))

ALONE = VmMap()
SHARED = VmMap.model_validate({"delegates": ["spice", "kiosk"]})


@pytest.fixture
def _accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only accounts are anne's and the shared one, whichever this machine has."""
    monkeypatch.setattr(people, "look_up", _look_up)
    monkeypatch.setattr(broker_people, "look_up", _look_up)


def _look_up(who: int | str) -> Account | None:
    found = [each for each in (ANNE, SPICE) if who in {each.uid, each.user}]
    return Account(found[0], "/bin/sh") if found else None


@pytest.mark.usefixtures("_accounts")
@pytest.mark.parametrize("vm_map", [ALONE, SHARED])
def test_a_person_with_an_account(vm_map: VmMap) -> None:
    person = identify("anne", vm_map)
    assert person == ANNE
    assert shared_accounts(person, vm_map) == ()


@pytest.mark.usefixtures("_accounts")
def test_a_person_without_one_comes_through_a_shared_account() -> None:
    person = identify("charlie", SHARED)
    assert person.user == "charlie"
    assert not person.groups
    assert shared_accounts(person, SHARED) == ("spice", "kiosk")


@pytest.mark.usefixtures("_accounts")
@pytest.mark.parametrize("name", ["anne", "charlie", "spice"])
def test_the_broker_takes_a_shared_accounts_people_for_the_same(name: str) -> None:
    known = broker_people.People(cast("MapStore", SimpleNamespace(current=SHARED)))
    asker = asyncio.run(known.asker(SPICE.uid, "192.0.2.7", name))
    assert asker.person == identify(name, SHARED)
    assert (asker.via, asker.doubt) == ("spice", "")


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
