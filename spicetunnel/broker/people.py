"""Who asks: the kernel's uid, the person the map knows, and where they are.

The account database is asked in a thread, and its answers are remembered for a few seconds, so that
a slow directory stalls nobody.
"""

import asyncio
import ipaddress
import os
import time
from dataclasses import dataclass
from datetime import datetime

from spicetunnel.broker.console import Console
from spicetunnel.broker.maps import MapStore
from spicetunnel.common.errors import NotPermittedError, SpicetunnelError
from spicetunnel.policy.accounts import Account, look_up, without_account
from spicetunnel.policy.decide import Facts, Identity

GATE = "spicetunnel-gate"  # the program's name, as a login shell
_TIMEOUT = 10.0  # seconds a directory server may take
_FRESH = 5.0  # seconds an answer is taken for the present state
ADMIN_GROUP = "spicetunnel-admin"


@dataclass(frozen=True, slots=True)
class Asker:
    """One person at one gate. `client`: their address, as sshd told the gate, which told us."""

    uid: int  # by the kernel
    person: Identity
    client: str | None
    doubt: str  # why the address cannot be trusted; empty if it can
    via: str = ""  # the shared account that the person came in by; empty for their own

    @property
    def as_name(self) -> str:
        """The person, if they came in by a shared account; else empty."""
        return self.person.user if self.via else ""

    @property
    def fields(self) -> dict[str, object]:
        """For the log."""
        named = {"user": self.person.user, "uid": self.uid, "via": self.via or None}
        return {**named, "client": self.client}

    def facts(self, console: Console, now: datetime) -> Facts:
        """The decision's facts at that moment."""
        believed = ipaddress.ip_address(self.client) if self.client and not self.doubt else None
        return Facts(
            now=now,
            at_console=self.person.uid in console.uids(),
            address=believed,
            doubt=self.doubt or "the client's address is not known",
        )


class People:
    """The account database, with a short memory."""

    def __init__(self, maps: MapStore) -> None:
        self._maps = maps
        self._known: dict[int | str, tuple[float, Account]] = {}

    def forget(self, *who: int | str) -> None:
        """Look them up again next time, so that a new group counts at once."""
        for each in who:
            self._known.pop(each, None)

    async def asker(self, uid: int, client: str | None, as_name: str = "") -> Asker:
        """Look up who asks: the account of `uid`, or the person `as_name` that it speaks for.

        Raises NotPermittedError for a uid without an account, and for an `as_name` from an
        account that the map does not name under `delegates`.
        """
        account = await self._account(uid)
        if not as_name:
            return Asker(uid, account.identity, client, _doubt(account))
        name = account.identity.user
        if not {name, str(uid)} & set(self._maps.current.delegates):
            raise NotPermittedError(
                "this account may not speak for others",
                "the admin names such accounts under 'delegates:' in the map",
            )
        return Asker(uid, await self._spoken_for(as_name), client, "", via=name)

    async def again(self, asker: Asker) -> Asker:
        """Look the same person up again."""
        return await self.asker(asker.uid, asker.client, asker.as_name)

    async def _spoken_for(self, name: str) -> Identity:
        """The person of that name, with or without an account here."""
        try:
            return (await self._account(name)).identity
        except NotPermittedError:
            return without_account(name)

    async def _account(self, who: int | str) -> Account:
        known = self._known.get(who)
        if known and time.monotonic() - known[0] < _FRESH:
            return known[1]
        try:
            async with asyncio.timeout(_TIMEOUT):
                account = await asyncio.to_thread(look_up, who)
        except TimeoutError:
            raise SpicetunnelError(
                "the server could not look up who you are in time", "try again in a moment"
            ) from None
        if account is None:
            what = "user" if isinstance(who, str) else "uid"
            raise NotPermittedError(f"{what} {who} has no account on this server")
        self._known[who] = (time.monotonic(), account)
        return account


class Admins:
    """Who may look after others' sessions: root and the admin group, by the kernel's word."""

    def __init__(self, group: str = ADMIN_GROUP) -> None:
        self._group = group

    def include(self, asker: Asker) -> bool:
        """Whether they are an admin. Who comes by a shared account never is."""
        is_admin = asker.uid == 0 or self._group in asker.person.groups
        return is_admin and not asker.via

    def require(self, asker: Asker) -> None:
        """Raises NotPermittedError if they are not an admin."""
        if not self.include(asker):
            raise NotPermittedError(
                "this is for the admins of this server",
                f"they are root and the members of the group {self._group}",
            )


def _doubt(account: Account) -> str:
    """Why the address that a gate of this account tells cannot be trusted; empty if it can."""
    if os.path.basename(account.shell) == GATE:
        return ""
    return "programs of the user's own could run before the gate, so the address is not believed"
