"""Gives and takes back temporary grants: docs/protocol.md, section 2, "The admin's command"."""

import asyncio
import secrets
from datetime import timedelta

from pydantic import TypeAdapter, ValidationError

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.review import Review
from spicetunnel.broker.rules import Rules
from spicetunnel.common.errors import UsageError
from spicetunnel.common.protocol import Message, number, text
from spicetunnel.policy.fields import Account, Reason, why_not_a_name
from spicetunnel.policy.moments import instant
from spicetunnel.policy.problems import near, printable, quote
from spicetunnel.policy.temporary import LONGEST, TemporaryGrant

EXPIRY_POLL = 1.0  # seconds; a session ends by itself, at its grant's very end

_ACCOUNT: TypeAdapter[str] = TypeAdapter(Account)
_REASON: TypeAdapter[str] = TypeAdapter(Reason)


class Granting:
    def __init__(
        self, grants: Grants, rules: Rules, people: People, review: Review, audit: Audit
    ) -> None:
        self._grants = grants
        self._people = people
        self._rules = rules
        self._review = review
        self._audit = audit

    async def grant(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Raises UsageError, BusyError, StateError or ProtocolError."""
        await self._people.require_served(self._wished(request, asker).user)
        given = self._wished(request, asker)  # anew: the lookup may have taken seconds
        self._grants.add(given)
        self._log("grant", given, asker)
        await self._review.all()
        gate.send({"event": "granted", "grant": _row(given)})

    async def revoke(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Raises as `grant` does. Sessions that rested on the grants have ended when it answers."""
        gone = self._named(request)
        try:
            self._grants.revoke(gone)
        finally:  # even if the file could not be written
            for each in gone:
                self._log("revoke", each, asker)
            await self._review.all()
        gate.send({"event": "revoked", "grants": [each.id for each in gone]})

    async def grants(self, gate: GateConnection, _request: Message, _asker: Asker) -> None:
        await gate.send_rows("grants", [_row(each) for each in self._grants])

    async def expire(self) -> None:
        """Loop: end the sessions that rest on an expired grant, then remove the grant."""
        while True:
            await asyncio.sleep(EXPIRY_POLL)
            now = self._rules.now()
            if any(each.until <= now for each in self._grants):
                await self._review.all()  # before the removal: the grant tells why they end
                self._grants.expire(now)

    def _wished(self, request: Message, admin: Asker) -> TemporaryGrant:
        vm, seconds = text(request, "vm"), number(request, "seconds")
        vms = self._rules.current().vms
        if vm not in vms:
            hint = near(vm, vms) or "'spicetunnel calendar' shows every vm of the map"
            raise UsageError(f"the map has no vm {quote(vm)}", hint)
        if not 1 <= seconds <= LONGEST.total_seconds():
            reason = f"a temporary grant lasts from a second to {LONGEST.days} days"
            raise UsageError(reason, "write what is to last longer into the map")
        since = self._rules.now().replace(microsecond=0)
        return TemporaryGrant(
            id=self._new_id(),
            user=_checked_user(text(request, "user")),
            vm=vm,
            since=since,
            until=since + timedelta(seconds=seconds),
            by=printable(admin.person.user),
            reason=_checked_reason(text(request, "reason")),
        )

    def _new_id(self) -> str:
        taken = {each.id for each in self._grants}
        while (drawn := secrets.token_hex(4)) in taken:
            pass
        return drawn

    def _named(self, request: Message) -> list[TemporaryGrant]:
        """The grants that match every field that is not empty; at least one. Raises UsageError."""
        wanted = [text(request, key, "") for key in ("grant", "user", "vm")]
        if not any(wanted):
            raise UsageError("nothing says what to revoke", "name a grant, or a user and a vm")
        found = [each for each in self._grants if _is_named(each, wanted)]
        if not found:
            words = " ".join(quote(word) for word in wanted if word)
            raise UsageError(f"no temporary grant is {words}", "'spicetunnel grants' shows them")
        return found

    def _log(self, event: str, grant: TemporaryGrant, admin: Asker) -> None:
        about = {"grant": grant.id, "user": grant.user, "vm": grant.vm}
        whose = {"by": admin.person.user, "uid": admin.uid}
        self._audit.write(
            event, **about, until=instant(grant.until), reason=grant.reason or None, **whose
        )


def _is_named(grant: TemporaryGrant, wanted: list[str]) -> bool:
    its = (grant.id, grant.user, grant.vm)
    return all(word in {"", own} for word, own in zip(wanted, its, strict=True))


def _checked_user(name: str) -> str:
    """Raises UsageError, worded for the person who typed it."""
    try:
        return _ACCOUNT.validate_python(name)
    except ValidationError:
        why, hint = why_not_a_name(name)
        raise UsageError(f"the user cannot be {quote(name)}: {why}", hint) from None


def _checked_reason(words: str) -> str:
    """Raises UsageError."""
    try:
        return _REASON.validate_python(words)
    except ValidationError:
        what = "printable text of 200 characters at most"
        raise UsageError(f"the reason must be {what}, not {quote(words)}", "say less") from None


def _row(grant: TemporaryGrant) -> Message:
    return grant.model_dump(mode="json")
