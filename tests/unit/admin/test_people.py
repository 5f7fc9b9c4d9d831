"""People as the real account database of this machine knows them."""

import os
import pwd

import pytest

from spicetunnel.admin.people import NoUserError, identify


def test_a_person_with_uid_and_groups() -> None:
    person = identify("daemon")
    assert (person.uid, person.user) == (pwd.getpwnam("daemon").pw_uid, "daemon")
    assert "daemon" in person.groups


def test_supplementary_groups_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda _user, gid: [gid, 0, 2**31 - 7])
    assert identify("daemon").groups == {"daemon", "root"}  # a gid without a name is none


@pytest.mark.parametrize("name", ["no-such-user", "", "a\0b", "\x1b[2J", "\udcff"])
def test_a_name_that_nobody_has(name: str) -> None:
    with pytest.raises(NoUserError) as raised:
        identify(name)
    assert raised.value.exit_code == 67
    assert raised.value.reason.startswith("no user '")
    assert raised.value.reason.isprintable()
    assert "getent" in raised.value.hint
