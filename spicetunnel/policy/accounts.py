"""The account database, through NSS: so LDAP and SSSD work, and may take their time."""

import grp
import os
import pwd
from dataclasses import dataclass

from spicetunnel.policy.decide import Identity

NO_UID = -1  # of a person without an account here: no grant can name it, no seat be held by it


@dataclass(frozen=True, slots=True)
class Account:
    """What the database says of a uid or a name."""

    identity: Identity
    shell: str


def look_up(who: int | str) -> Account | None:
    """The account of that uid or name; None where there is none."""
    try:
        entry = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except (KeyError, ValueError):  # none such; a name that cannot be one
        return None
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    groups = frozenset(name for name in map(_group_name, gids) if name)
    return Account(Identity(entry.pw_uid, entry.pw_name, groups), entry.pw_shell)


def without_account(name: str) -> Identity:
    """The person of that name who has no account here, only a key to a shared one."""
    return Identity(NO_UID, name, frozenset())


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
