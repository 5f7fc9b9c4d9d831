"""Looks up accounts through NSS, so LDAP and SSSD work too. A lookup may be slow."""

import grp
import os
import pwd
from dataclasses import dataclass

from spicetunnel.policy.decide import Identity

NO_UID = -1  # a person without an account here; no grant can name it, no seat has it


@dataclass(frozen=True, slots=True)
class Account:
    """What the account database says about a uid or a name."""

    identity: Identity
    shell: str


def look_up(who: int | str) -> Account | None:
    """The account of that uid or name, or None if there is none."""
    try:
        entry = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except (KeyError, ValueError):  # no such account, or not a possible name
        return None
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    groups = frozenset(name for name in map(_group_name, gids) if name)
    return Account(Identity(entry.pw_uid, entry.pw_name, groups), entry.pw_shell)


def without_account(name: str) -> Identity:
    """A person who has no account here, only a key to a shared account."""
    return Identity(NO_UID, name, frozenset())


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
