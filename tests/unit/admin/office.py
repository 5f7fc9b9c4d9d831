"""The map, and its people, that the tests of the admin's commands use."""

from pathlib import Path

import pytest

from spicetunnel.admin import people
from spicetunnel.policy import accounts
from spicetunnel.policy.accounts import Account
from spicetunnel.policy.decide import Identity

MAP = """\
timezone: Europe/Berlin
people:
  web: [{user: [maggie, anne]}, {group: interns}]
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: /run/vm1.sock
    allow:
      - user: charlie
      - user: boss
        when: Mon-Fri 17:00-22:00
        take-over: true
  vm2:
    socket: /run/vm2.sock
    allow:
      - {user: maggie, when: "Mon,Tue"}
      - {user: anne, when: "Wed,Thu"}
      - {people: web, when: "Fri 08:30-12:15,13:00-17:45", view-only: true}
      - {user: anne, when: "Sat 22:00-06:00", from: 192.0.2.0/24}
  vm3:
    socket: /run/vm3.sock
  lab-win:
    socket: /run/lab-win.sock
    timezone: America/New_York
    allow:
      - {group: students, where: console}
"""

GROUPS = {
    "charlie": {"users"},
    "boss": {"users"},
    "anne": {"users"},
    "lisa": {"students"},
    "dave": set(),
}


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of the map. The account database has its people, and nobody else."""
    monkeypatch.setattr(people, "look_up", _look_up)
    monkeypatch.setattr(accounts, "has_user", GROUPS.__contains__)
    return write_map(tmp_path / "vms.yaml", MAP)


def write_map(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def _look_up(user: str) -> Account | None:
    if user not in GROUPS:
        return None
    return Account(Identity(1000, user, frozenset(GROUPS[user])), "/bin/sh")
