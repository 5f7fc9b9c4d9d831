"""A session from its opening to its end, whoever ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from spicetunnel.broker import reports
from spicetunnel.broker.countdown import Countdown, in_words
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.restart import follow_vm
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import NotPermittedError, NotRunningError, SpicetunnelError

LAST_WORD = 1.0  # seconds for a gate's last byte counts, after the cut
REVIEW_INTERVAL = 10.0  # seconds between two looks at a running session's groups and windows

Sleep = Callable[[float], Awaitable[object]]


class Lifecycle:
    """Holds sessions, and decides each anew whenever something it rests on may have changed."""

    def __init__(self, judge: Judge, people: People, seats: Seats, sleep: Sleep = asyncio.sleep):
        """`sleep` passes so many seconds of the judge's clock."""
        self._judge = judge
        self._people = people
        self._seats = seats
        self._sleep = sleep

    async def hold(self, session: Session) -> None:
        """Serve the session until its gate, its SSH connection or the server ends it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(session.anchor.pidfd, _connection_lost, session)
        session.watch(asyncio.ensure_future(self._keep_reviewing(session)))
        session.watch(asyncio.ensure_future(follow_vm(session, self._judge)))
        listening = asyncio.ensure_future(reports.listen(session))
        either: set[asyncio.Future[Any]] = {listening, session.over}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({listening}, timeout=LAST_WORD)
        finally:
            listening.cancel()
            loop.remove_reader(session.anchor.pidfd)
        # Not reached where we are stopped ourselves: the session goes on, for our successor.
        self._seats.remove(session)
        session.finish(_why(listening))

    async def review_all(self) -> None:
        """Decide every live session anew: the map or the console has changed."""
        sessions = list(self._seats)
        await asyncio.gather(*(self._review(session) for session in sessions))
        for session in sessions:
            session.reviewed.set()

    async def _keep_reviewing(self, session: Session) -> None:
        """Decide anew at the end of each window, and now and then for a change of groups; warn."""
        countdown = Countdown()
        countdown.is_due(session.until, self._judge.map.warn, self._judge.now())  # `ready` told it
        while True:
            changes = await self._review(session)
            if session.ended:
                return
            warnings, now = self._judge.map.warn, self._judge.now()
            if countdown.is_due(session.until, warnings, now):
                self._warn(session, now)
            turns = [changes, countdown.next(session.until, warnings, now)]
            waits = [(turn - now).total_seconds() for turn in turns if turn]
            await self._pause(session, max(0.0, min([REVIEW_INTERVAL, *waits])))

    async def _pause(self, session: Session, seconds: float) -> None:
        """So long, or until the session was reviewed for another reason: its end may be nearer."""
        turns = [asyncio.ensure_future(self._sleep(seconds))]
        turns.append(asyncio.ensure_future(session.reviewed.wait()))
        try:
            await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.reviewed.clear()
            for turn in turns:
                turn.cancel()

    async def _review(self, session: Session) -> datetime | None:
        """Decide one session anew, and end or restrict it; when that may change next."""
        if session.ended:
            return None
        try:
            asker = await self._people.again(session.asker)
            return self._judged(session, asker)
        except SpicetunnelError as error:
            session.revoke(error)
            return None

    def _judged(self, session: Session, asker: Asker) -> datetime | None:
        name = session.vm_name
        decision = self._judge.decide(asker, name)
        if not decision.allow:
            reason = f"you may no longer use '{name}': {decision.why}"
            raise NotPermittedError(reason, decision.hint)
        if self._judge.vm(name).socket != session.place.socket:
            raise NotRunningError(f"'{name}' has moved", "connect again")
        session.until = decision.until
        if decision.denied != session.denied:
            session.restrict(decision.denied)
        return decision.changes

    def _warn(self, session: Session, now: datetime) -> None:
        if session.until is None:
            return
        name = session.vm_name
        end = session.until.astimezone(self._judge.map.zone_of(self._judge.vm(name)))
        left = in_words(session.until - now)
        session.tell("notice", f"your time at '{name}' ends {left}, at {end:%H:%M}", "save now")
        session.log("warning", until=end.isoformat(timespec="seconds"))


def _connection_lost(session: Session) -> None:
    asyncio.get_running_loop().remove_reader(session.anchor.pidfd)
    session.revoke(SpicetunnelError("the SSH connection is gone"))


def _why(listening: asyncio.Future[None]) -> str:
    """Why the gate's side ended, for the log."""
    if not listening.done() or listening.cancelled():
        return "ended"
    error = listening.exception()
    return f"dropped: {error}" if error else "the client left"
