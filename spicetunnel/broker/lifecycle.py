"""A session from its opening to its end, whoever ends it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from spicetunnel.broker.dial import is_running
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.sessions import Session, SessionTable
from spicetunnel.common.errors import (
    NotPermittedError,
    NotRunningError,
    ProtocolError,
    SpicetunnelError,
)
from spicetunnel.common.protocol import Message, natural, number, text

LAST_WORD = 1.0  # seconds for a gate's last byte counts, after the cut
VM_CHECKS = (0.0, 0.3, 1.0)  # seconds: a dying QEMU may close its channels before its socket
REVIEW_INTERVAL = 10.0  # seconds between two looks at a running session's groups and windows


class Lifecycle:
    """Holds sessions, and decides each anew whenever something it rests on may have changed."""

    def __init__(self, judge: Judge, people: People, sessions: SessionTable) -> None:
        self._judge = judge
        self._people = people
        self._sessions = sessions

    async def hold(self, session: Session) -> None:
        """Serve the session until its gate, its SSH connection or the server ends it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(session.anchor.pidfd, _connection_lost, session)
        session.watch(asyncio.ensure_future(self._keep_reviewing(session)))
        listening = asyncio.ensure_future(_listen(session))
        either: set[asyncio.Future[Any]] = {listening, session.over}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({listening}, timeout=LAST_WORD)
        finally:
            listening.cancel()
            loop.remove_reader(session.anchor.pidfd)
            self._sessions.remove(session)
            session.finish(_why(listening))

    async def review_all(self) -> None:
        """Decide every live session anew: the map or the console has changed."""
        await asyncio.gather(*(self._review(session) for session in self._sessions))

    async def _keep_reviewing(self, session: Session) -> None:
        """Decide anew at the end of each window, and now and then for a change of groups."""
        while not session.ended:
            changes = await self._review(session)
            wait = REVIEW_INTERVAL
            if changes:
                wait = min(wait, max(0.0, (changes - datetime.now(UTC)).total_seconds()))
            await asyncio.sleep(wait)

    async def _review(self, session: Session) -> datetime | None:
        """Decide one session anew, and end or restrict it; when that may change next."""
        try:
            old = session.asker
            as_name = old.person.user if old.via else ""
            asker = await self._people.asker(old.uid, old.client, as_name)
            return self._judged(session, asker)
        except SpicetunnelError as error:
            session.revoke(error)
            return None

    def _judged(self, session: Session, asker: Asker) -> datetime | None:
        name = session.vm_name
        decision = self._judge.decide(asker, name)
        if not decision.allow:
            hint = decision.hint or decision.reason
            raise NotPermittedError(f"you may no longer use '{name}'", hint)
        if self._judge.vm(name).socket != session.vm_socket:
            raise NotRunningError(f"'{name}' has moved", "connect again")
        if decision.denied != session.denied:
            session.restrict(decision.denied)
        return decision.changes


def _connection_lost(session: Session) -> None:
    asyncio.get_running_loop().remove_reader(session.anchor.pidfd)
    session.revoke(SpicetunnelError("the SSH connection is gone"))


async def _listen(session: Session) -> None:
    while (message := await session.gate.receive()) is not None:
        operation = text(message, "op")
        if operation == "closed":
            _closed(session, message)
        elif operation == "usage":
            _count(session, message)
        else:
            raise ProtocolError("an operation that does not belong in a session")


def _closed(session: Session, message: Message) -> None:
    by = text(message, "by")
    if by not in {"viewer", "vm", "relay"}:
        raise ProtocolError("'by' is neither viewer, vm nor relay")
    channel_number = number(message, "channel")
    session.count(channel_number, number(message, "up"), number(message, "down"))
    channel = session.close_channel(channel_number, f"closed by the {by}")
    if channel is not None and channel.link.is_main and by == "vm":
        session.watch(asyncio.ensure_future(_end_if_vm_stopped(session)))


async def _end_if_vm_stopped(session: Session) -> None:
    for pause in VM_CHECKS:
        await asyncio.sleep(pause)
        if not is_running(session.vm_socket):
            name = session.vm_name
            session.revoke(NotRunningError(f"'{name}' has stopped", "connect again when it runs"))
            return


def _count(session: Session, message: Message) -> None:
    usage = message.get("channels")
    if not isinstance(usage, dict):
        raise ProtocolError("'channels' is not an object")
    for key, counts in usage.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ProtocolError("'channels' has a key that is no channel")
        if not (isinstance(counts, list) and len(counts) == 2):
            raise ProtocolError("'channels' does not hold pairs of counts")
        session.count(int(key), natural(counts[0], "channels"), natural(counts[1], "channels"))


def _why(listening: asyncio.Future[None]) -> str:
    """Why the gate's side ended, for the log."""
    if not listening.done() or listening.cancelled():
        return "ended"
    error = listening.exception()
    return f"dropped: {error}" if error else "the client left"
