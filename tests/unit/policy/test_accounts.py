"""Looking up people in the real account database of this machine."""

import grp
import os
import pwd

import pytest

from spicetunnel.policy.accounts import NO_UID, look_up, without_account

OURS = pwd.getpwuid(os.getuid())  # the one account that every machine has: of who runs the test
GROUP = grp.getgrgid(OURS.pw_gid).gr_name


@pytest.mark.parametrize("by_uid", [False, True])
def test_account_has_uid_groups_and_shell(by_uid: bool) -> None:
    account = look_up(OURS.pw_uid if by_uid else OURS.pw_name)
    assert account
    assert (account.identity.uid, account.identity.user) == (OURS.pw_uid, OURS.pw_name)
    assert GROUP in account.identity.groups
    assert account.shell == OURS.pw_shell


def test_supplementary_groups_count(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(each for each in grp.getgrall() if each.gr_gid != OURS.pw_gid)
    monkeypatch.setattr(os, "getgrouplist", lambda _user, gid: [gid, other.gr_gid, 2**31 - 7])
    account = look_up(OURS.pw_name)
    assert account
    assert account.identity.groups == {GROUP, other.gr_name}  # a gid without a name has none
    assert account.identity.gids == {OURS.pw_gid, other.gr_gid, 2**31 - 7}


@pytest.mark.parametrize(
    "who", ["no-such-user", "", "a\0b", "\x1b[2J", "\udcff", 2**31 - 7, 2**32 - 1, NO_UID]
)
def test_unknown_name_or_uid_has_no_account(who: str | int) -> None:
    assert look_up(who) is None


def test_person_without_account_has_only_a_name() -> None:
    person = without_account("charlie")
    assert (person.uid, person.user, person.groups) == (NO_UID, "charlie", frozenset())
