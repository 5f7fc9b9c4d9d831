"""Decides running sessions anew, and warns ahead of their end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

from spicetunnel.broker.people import Asker, AwayError, People
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import NotPermittedError, NotRunningError, SpicetunnelError
from spicetunnel.policy.moments import clock

INTERVAL = 10.0  # seconds between two looks at a running session's groups and windows

Sleep = Callable[[float], Awaitable[object]]


class Review:
    """Decides each session anew whenever something it rests on may have changed."""

    def __init__(
        self, rules: Rules, people: People, seats: Seats, sleep: Sleep = asyncio.sleep
    ) -> None:
        """`sleep` passes so many seconds of the rules' clock."""
        self._rules = rules
        self._people = people
        self._seats = seats
        self._sleep = sleep

    async def all(self) -> None:
        """Decide every live session anew: the map or the console has changed."""
        sessions = list(self._seats)
        await asyncio.gather(*(self._review(session) for session in sessions))
        for session in sessions:
            session.reviewed.set()

    async def follow(self, session: Session) -> None:
        """Decide anew when the decision may change, and now and then for a change of groups; warn.

        Returns when the session has ended.
        """
        countdown = Countdown()
        # `ready` has told the person about an end that is known already.
        countdown.is_due(session.until, self._rules.current().warn, self._rules.now())
        while not session.ended:
            warnings, now = self._rules.current().warn, self._rules.now()
            if countdown.is_due(session.until, warnings, now):
                self._warn(session, now)
            turns = [session.changes, countdown.next(session.until, warnings, now)]
            waits = [(turn - now).total_seconds() for turn in turns if turn]
            await self._pause(session, max(0.0, min([INTERVAL, *waits])))
            await self._review(session)

    async def _pause(self, session: Session, seconds: float) -> None:
        """Wait so long, or until the session was reviewed otherwise: its end may be nearer."""
        turns = [asyncio.ensure_future(self._sleep(seconds))]
        turns.append(asyncio.ensure_future(session.reviewed.wait()))
        try:
            await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.reviewed.clear()
            for turn in turns:
                turn.cancel()

    async def _review(self, session: Session) -> None:
        """Decide one session anew, and end or restrict it."""
        if session.ended:
            return
        try:
            self._decide(session, await self._people.still(session.asker))
        except AwayError as error:
            # A session of the broker before opens no channel until it is decided.
            if session.decided.is_set() or not self._people.is_new:
                session.revoke(error)
        except SpicetunnelError as error:
            session.revoke(error)

    def _decide(self, session: Session, asker: Asker) -> None:
        """Raises SpicetunnelError if the session must end."""
        name, vm_map = session.vm_name, self._rules.current()
        decision = self._rules.decide(vm_map, asker, name)
        if not decision.allow:
            reason = f"you may no longer use '{name}': {decision.why}"
            raise NotPermittedError(reason, decision.hint, decision.times)
        if vm_map.vms[name].socket != session.place.socket:
            raise NotRunningError(f"'{name}' has moved", "connect again")
        session.follow(decision)

    def _warn(self, session: Session, now: datetime) -> None:
        if session.until is None:
            return
        name, vm_map = session.vm_name, self._rules.current()
        end = clock(session.until, vm_map.zone_of(vm_map.vms[name]), now)
        said = f"your time at '{name}' ends {in_words(session.until - now)}, at {end.words}"
        session.tell("notice", said, "save now", end.times)
        session.log("warning", until=end.instant)


class Countdown:
    """The warnings of one session. A warning is a time before the end; each is given once."""

    def __init__(self) -> None:
        self._given: set[tuple[datetime, timedelta]] = set()

    def is_due(self, until: datetime | None, warnings: Iterable[timedelta], now: datetime) -> bool:
        """Whether to warn now. Counts the warnings that are due as given."""
        if until is None or now >= until:
            return False
        reached = {(until, each) for each in warnings if until - each <= now}
        fresh = reached - self._given
        self._given |= reached
        return bool(fresh)

    def next(
        self, until: datetime | None, warnings: Iterable[timedelta], now: datetime
    ) -> datetime | None:
        """When the next warning is due; None for never."""
        ahead = (until - each for each in warnings) if until else ()
        return min((moment for moment in ahead if moment > now), default=None)


def in_words(left: timedelta) -> str:
    """`in 10 minutes`, `in 45 seconds`, `in 1 hour 5 minutes`, rounded to what matters."""
    seconds = max(0, round(left.total_seconds()))
    if seconds < 90:
        return f"in {_count(seconds, 'second')}" if seconds != 60 else "in 1 minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [_count(hours, "hour")] if hours else []
    parts += [_count(minutes, "minute")] if minutes else []
    return f"in {' '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
