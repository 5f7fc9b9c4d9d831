"""From the kernel's uid to the person the map knows, through NSS (so LDAP and SSSD work)."""

import asyncio
import grp
import os
import pwd

from spicetunnel.common.errors import NotPermittedError, SpicetunnelError
from spicetunnel.policy.decide import Identity

_TIMEOUT = 10.0  # seconds a directory server may take


async def identify(uid: int) -> Identity:
    """The person `uid` is now. In a thread: a slow directory must not stall the other sessions.

    Raises NotPermittedError for a uid without a name, SpicetunnelError if the directory is slow.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await asyncio.to_thread(_look_up, uid)
    except TimeoutError:
        raise SpicetunnelError(
            "the server could not look up who you are in time", "try again in a moment"
        ) from None


def _look_up(uid: int) -> Identity:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise NotPermittedError(f"uid {uid} has no account on this server") from None
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    names = (_group_name(gid) for gid in gids)
    return Identity(uid, entry.pw_name, frozenset(name for name in names if name))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
