"""Who asks: the kernel's uid, the person the map knows, and where they are.

The account database is asked in a thread, and its answers are remembered for a few seconds, so that
a slow directory stalls nobody.
"""

import asyncio
import ipaddress
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from spicetunnel.broker.console import Console
from spicetunnel.broker.maps import MapStore
from spicetunnel.common.errors import NotPermittedError, SpicetunnelError, UsageError
from spicetunnel.common.names import is_person_name
from spicetunnel.policy.accounts import Account, look_up, without_account
from spicetunnel.policy.decide import Facts, Identity
from spicetunnel.policy.problems import printable, quote

GATE = "spicetunnel-gate"  # the program's name, as a login shell
_TIMEOUT = 10.0  # seconds a directory server may take
_THREADS = 8
AWAY = 300  # seconds
_FRESH = 5.0  # seconds an answer is taken for the present state
ADMIN_GROUP = "spicetunnel-admin"


class AwayError(SpicetunnelError):
    """The account database does not answer, or not with all that it knew before."""

    exit_code = os.EX_TEMPFAIL

    def __init__(self) -> None:
        super().__init__("the server could not look up who you are", "try again in a moment")


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
    """The account database, with a memory: short for requests, longer for sessions that run."""

    def __init__(self, maps: MapStore, away: float = AWAY) -> None:
        """`away`: seconds that a session goes on while its person cannot be looked up."""
        self._maps = maps
        self._away = away
        self._started = time.monotonic()
        self._known: dict[int | str, _Known] = {}
        self._asking: dict[int | str, asyncio.Future[Account | None]] = {}
        # Of our own: a directory that does not answer must not hold up what else runs in threads.
        self._threads = ThreadPoolExecutor(_THREADS, "accounts")

    def forget(self, *who: int | str) -> None:
        """Look them up again next time, so that a new group counts at once."""
        for each in who:
            if each in self._known:
                self._known[each].is_fresh = False

    async def asker(self, uid: int, client: str | None, as_name: str = "") -> Asker:
        """Look up who asks: the account of `uid`, or the person `as_name` that it speaks for.

        Raises NotPermittedError for a uid without an account, and for an `as_name` from an
        account that the map does not name under `delegates`; AwayError if nobody knows.
        """
        account = await self._account(uid)
        if not as_name:
            return Asker(uid, account.identity, client, _doubt(account))
        name = account.identity.user
        if not self._may_speak_for_others(uid, name):
            raise NotPermittedError(
                "this account may not speak for others",
                "the admin names such accounts under 'delegates:' in the map",
            )
        return Asker(uid, await self._spoken_for(as_name), client, "", via=name)

    def is_shared(self, uid: int) -> bool:
        """Whether the account, if we know it, is one that several people share."""
        known = self._known.get(uid)
        return self._may_speak_for_others(uid, known.account.identity.user if known else "")

    def _may_speak_for_others(self, uid: int, name: str) -> bool:
        return bool({name, str(uid)} & set(self._maps.current.delegates))

    async def require_served(self, name: str) -> None:
        """Raises UsageError for a name that nobody who comes here can have.

        That is one without an account, unless the map has shared accounts, whose people need none.
        """
        self.forget(name)
        try:
            await self._account(name)
        except NotPermittedError:
            if not self._maps.current.delegates:
                asks = f"getent passwd {printable(shlex.quote(name))}"
                hint = f"correct the name; the account database is asked by: {asks}"
                raise UsageError(f"no user {quote(name)} on this server", hint) from None
            if not is_person_name(name):
                reason = f"no user {quote(name)} on this server, and no key can be of that name"
                hint = "who comes by a shared account has a name of letters, digits and ._@-"
                raise UsageError(reason, hint) from None

    async def again(self, asker: Asker) -> Asker:
        """Look the same person up again. Raises as `asker` does."""
        return await self.asker(asker.uid, asker.client, asker.as_name)

    async def still(self, asker: Asker) -> Asker:
        """The person of a running session, looked up again, or as they were last while that cannot
        be done. Raises as `asker` does, AwayError after some minutes.
        """
        try:
            return await self.again(asker)
        except AwayError:
            known = self._known.get(asker.as_name or asker.uid)
            if known is None or time.monotonic() - known.at > self._away:
                raise
            return replace(asker, person=known.account.identity)

    @property
    def is_new(self) -> bool:
        """Whether we may not have known a person yet whose session is older than we are."""
        return time.monotonic() - self._started < self._away

    async def _spoken_for(self, name: str) -> Identity:
        """The person of that name, with or without an account here."""
        try:
            return (await self._account(name)).identity
        except NotPermittedError:
            return without_account(name)

    async def _account(self, who: int | str) -> Account:
        """Raises NotPermittedError or AwayError."""
        known = self._known.get(who)
        if known and known.is_fresh and time.monotonic() - known.at < _FRESH:
            return known.account
        account = await self._look_up(who)
        if known and _is_hidden(account, known.account):
            raise AwayError
        if account is None:
            self._known.pop(who, None)
            what = "user" if isinstance(who, str) else "uid"
            raise NotPermittedError(f"{what} {who} has no account on this server")
        self._known[who] = _Known(account, time.monotonic())
        return account

    async def _look_up(self, who: int | str) -> Account | None:
        """The answer, shared by all who ask meanwhile. Raises AwayError if none comes in time."""
        asking = self._asking.get(who)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = self._asking[who] = loop.run_in_executor(self._threads, look_up, who)
            asking.add_done_callback(lambda _: self._asking.pop(who, None))
        done, _ = await asyncio.wait({asking}, timeout=_TIMEOUT)
        if not done:
            raise AwayError
        try:
            return asking.result()
        except OSError:  # no descriptor is free
            raise AwayError from None


@dataclass(slots=True)
class _Known:
    account: Account
    at: float
    is_fresh: bool = True


def _is_hidden(now: Account | None, before: Account) -> bool:
    """Whether an account that was there before is not seen whole, though nobody took it away."""
    if now is None:
        return not before.is_local
    return bool(now.unnamed > before.unnamed and now.identity.groups < before.identity.groups)


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
