"""From a name to the person the map knows, through NSS (so LDAP and SSSD work)."""

import grp
import os
import pwd

from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.problems import quote


class NoUserError(SpicetunnelError):
    """The account database does not know the name."""

    exit_code = os.EX_NOUSER


def identify(user: str) -> Identity:
    """The person of that name. Raises NoUserError."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):  # no such name; a name that cannot be one
        hint = "'getent passwd NAME' asks the account database as this command does"
        raise NoUserError(f"no user {quote(user)} on this server", hint) from None
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    names = (_group_name(gid) for gid in gids)
    return Identity(entry.pw_uid, entry.pw_name, frozenset(name for name in names if name))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
