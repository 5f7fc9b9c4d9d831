"""Looks up accounts through NSS, so LDAP and SSSD work too. A lookup may be slow.

NSS says the same of an account that does not exist and of a directory that does not answer (SSSD
restarts, no descriptor is free): not found. What else is known here of an account helps to tell.
"""

import grp
import os
import pwd
from dataclasses import dataclass

from spicetunnel.policy.decide import Identity

NO_UID = -1  # a person without an account here; no grant can name it, no seat has it


@dataclass(frozen=True, slots=True)
class Account:
    """What the account database says about a uid or a name.

    `is_local`: it stands in /etc/passwd, so that nothing else can hide it. `unnamed`: groups of it
    that have no name at this moment.
    """

    identity: Identity
    shell: str
    is_local: bool = True
    unnamed: int = 0


def look_up(who: int | str) -> Account | None:
    """The account of that uid or name, or None if there is none."""
    try:
        entry = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except (KeyError, ValueError):  # no such account, or not a possible name
        return None
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    names = [_group_name(gid) for gid in gids]
    groups = frozenset(name for name in names if name)
    identity = Identity(entry.pw_uid, entry.pw_name, groups, frozenset(gids))
    return Account(identity, entry.pw_shell, _is_local(entry.pw_name), names.count(""))


def has_user(who: int | str) -> bool:
    """Whether there is an account of that uid or name."""
    try:
        pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except (KeyError, ValueError):
        return False
    return True


def has_group(which: int | str) -> bool:
    """Whether there is a group of that gid or name."""
    try:
        grp.getgrnam(which) if isinstance(which, str) else grp.getgrgid(which)
    except (KeyError, ValueError):
        return False
    return True


def without_account(name: str) -> Identity:
    """A person who has no account here, only a key to a shared account."""
    return Identity(NO_UID, name, frozenset())


def _is_local(name: str) -> bool:
    try:
        with open("/etc/passwd", "rb") as file:
            return any(line.startswith(name.encode() + b":") for line in file)
    except OSError:
        return False


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
