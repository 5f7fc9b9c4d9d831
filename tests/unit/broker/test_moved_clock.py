"""The end of a window while somebody changes the clock.

Time passes only when the broker sleeps or the test sets the clock, so no test waits.
"""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import Connection, GateConnection
from spicetunnel.broker.console import Console
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.peers import Anchor
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.records import Records
from spicetunnel.broker.relays import Relay
from spicetunnel.broker.review import Review
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.vmmap import VmMap, parse_map

if TYPE_CHECKING:
    from spicetunnel.broker.maps import MapStore

BERLIN = ZoneInfo("Europe/Berlin")
EVENING = "{user: boss, when: Mon-Fri 17:00-22:00}"


class Maps:
    """Stands in for MapStore, without file and polling."""

    def __init__(self, grant: str, warn: str = "[10m, 1m]") -> None:
        self.use(grant, warn)

    def use(self, grant: str, warn: str = "[10m, 1m]") -> None:
        vm1 = f"{{socket: /vm1, allow: [{grant}]}}"
        text = f"timezone: Europe/Berlin\nwarn: {warn}\nvms: {{vm1: {vm1}}}"
        self.current: VmMap = parse_map(text.encode(), "m")


class SamePerson:
    """Stands in for People, without the account database."""

    async def still(self, asker: Asker) -> Asker:
        return asker


class ReviewedSession:
    """One session of the boss's and its review, from `moment` on a Tuesday in November."""

    def __init__(self, moment: str, maps: Maps, directory: Path) -> None:
        self.now = datetime.fromisoformat(f"2026-11-24 {moment}").replace(tzinfo=BERLIN)
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.maps = maps
        audit = Audit(open(os.devnull, "w"))  # noqa: SIM115 - closed below
        self._null = audit._stream
        records = Records(directory, audit)
        grants = Grants(directory, audit, self.now)
        rules = Rules(cast("MapStore", maps), grants, Console(directory), lambda: self.now)
        people = cast("People", SamePerson())
        self.review = Review(rules, people, Seats(), self.sleep)
        self.pidfd = os.pidfd_open(os.getpid())
        asker = Asker(1000, Identity(1000, "boss", frozenset()), None, "")
        self.session = Session(
            id="0badbeef",
            asker=asker,
            vm_name="vm1",
            place=Place("/vm1", "1"),
            keep=False,
            gate=GateConnection(theirs),
            anchor=Anchor(os.getpid(), 0, self.pidfd),
            relay=Relay(Connection(theirs), os.getpid(), 0, filters=True),
            grace=60,
            audit=audit,
            records=records,
            until=rules.decide(rules.current(), asker, "vm1").until,
        )
        self._theirs = theirs
        self.slept: list[float] = []
        self.actions: dict[int, Callable[[], None]] = {}

    async def sleep(self, seconds: float) -> None:
        """Advance the clock, then run the action that the test set for this number of sleeps."""
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        self.actions.pop(len(self.slept), lambda: None)()
        await asyncio.sleep(0)
        assert len(self.slept) < 5000, "the session never ends"

    def set_clock(self, moment: str) -> None:
        self.now = datetime.fromisoformat(f"2026-11-24 {moment}").replace(tzinfo=BERLIN)

    async def run(self) -> list[tuple[str, str]]:
        """Review the session until it ends; what its gate was sent."""
        async with asyncio.timeout(20):
            await self.review.follow(self.session)
        return self.sent()

    def sent(self) -> list[tuple[str, str]]:
        messages: list[tuple[str, str]] = []
        while True:
            try:
                message: dict[str, Any] = json.loads(self.ours.recv(65536))
            except BlockingIOError:
                return messages
            messages.append((message["event"], message["reason"]))

    def close(self) -> None:
        for each in (self.ours, self._theirs, self._null):
            each.close()
        os.close(self.pidfd)


@asynccontextmanager
async def session_from(
    moment: str, grant: str = EVENING, warn: str = "[10m, 1m]"
) -> AsyncIterator[ReviewedSession]:
    with tempfile.TemporaryDirectory() as directory:
        made = ReviewedSession(moment, Maps(grant, warn), Path(directory))
        try:
            yield made
        finally:
            made.close()


OVER = ("end", "you may no longer use 'vm1': your window is over")


def test_session_is_warned_twice_and_ends_with_its_window() -> None:
    async def scenario() -> None:
        async with session_from("18:00") as setup:
            assert await setup.run() == [
                ("notice", "your time at 'vm1' ends in 10 minutes, at 22:00 (Europe/Berlin)"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00 (Europe/Berlin)"),
                OVER,
            ]
            assert setup.now.strftime("%H:%M:%S") == "22:00:00"
            assert max(setup.slept) <= 10  # so that a change of the clock is noticed soon

    asyncio.run(scenario())


def test_warning_that_is_due_before_the_session_is_not_given() -> None:
    """`ready` has told the person about the end already."""

    async def scenario() -> None:
        async with session_from("21:55") as setup:
            assert await setup.run() == [
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00 (Europe/Berlin)"),
                OVER,
            ]

    asyncio.run(scenario())


def test_map_sets_when_to_warn() -> None:
    async def scenario() -> None:
        async with session_from("18:00", warn="[1h, 90s]") as setup:
            assert [reason for _, reason in await setup.run()][:2] == [
                "your time at 'vm1' ends in 1 hour, at 22:00 (Europe/Berlin)",
                "your time at 'vm1' ends in 2 minutes, at 22:00 (Europe/Berlin)",
            ]
        async with session_from("18:00", warn="[]") as setup:
            assert await setup.run() == [OVER]

    asyncio.run(scenario())


def test_session_ends_if_the_clock_is_set_forward_past_its_end() -> None:
    """Whether a person sets it or NTP: the session ends within ten seconds."""

    async def scenario() -> None:
        async with session_from("18:00") as setup:
            setup.actions[5] = lambda: setup.set_clock("23:30")
            assert await setup.run() == [OVER]
            assert len(setup.slept) <= 6

    asyncio.run(scenario())


def test_session_is_warned_if_the_clock_is_set_forward_to_just_before_its_end() -> None:
    async def scenario() -> None:
        async with session_from("18:00") as setup:
            setup.actions[5] = lambda: setup.set_clock("21:57")
            assert await setup.run() == [
                ("notice", "your time at 'vm1' ends in 3 minutes, at 22:00 (Europe/Berlin)"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00 (Europe/Berlin)"),
                OVER,
            ]

    asyncio.run(scenario())


def test_clock_set_back_does_not_repeat_a_warning_of_the_same_end() -> None:
    async def scenario() -> None:
        async with session_from("21:45") as setup:
            setup.actions[40] = lambda: setup.set_clock("21:00")  # after the warning of ten minutes
            assert await setup.run() == [
                ("notice", "your time at 'vm1' ends in 10 minutes, at 22:00 (Europe/Berlin)"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00 (Europe/Berlin)"),
                OVER,
            ]

    asyncio.run(scenario())


def test_session_is_warned_of_the_new_end_if_the_map_shortens_the_window() -> None:
    async def scenario() -> None:
        async with session_from("18:00") as setup:
            shorter = "{user: boss, when: Mon-Fri 17:00-18:05}"
            setup.actions[1] = lambda: setup.maps.use(shorter)
            assert await setup.run() == [
                ("notice", "your time at 'vm1' ends in 5 minutes, at 18:05 (Europe/Berlin)"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 18:05 (Europe/Berlin)"),
                OVER,
            ]

    asyncio.run(scenario())


def test_session_ends_at_once_if_the_map_takes_the_grant_away() -> None:
    async def scenario() -> None:
        async with session_from("18:00") as setup:
            setup.actions[3] = lambda: setup.maps.use("{user: anne}")
            assert await setup.run() == [
                ("end", "you may no longer use 'vm1': no grant names you"),
            ]
            assert len(setup.slept) == 3

    asyncio.run(scenario())


def test_map_that_brings_the_end_nearer_takes_effect_at_once() -> None:
    """Not only at the next review, which is ten seconds away: the new end is in three."""

    async def scenario() -> None:
        async with session_from("18:00:00") as setup:
            setup.review._seats.add(setup.session)
            slept = asyncio.Event()

            async def sleep(seconds: float) -> None:
                setup.slept.append(seconds)
                if len(setup.slept) == 1:
                    slept.set()
                    await asyncio.sleep(60)
                setup.now += timedelta(seconds=seconds)

            setup.review._sleep = sleep
            reviewing = asyncio.ensure_future(setup.run())
            await slept.wait()
            setup.set_clock("18:04:57")
            setup.maps.use("{user: boss, when: Mon-Fri 17:00-18:05}", "[]")
            await setup.review.all()
            assert await reviewing == [OVER]
            assert setup.slept == [10.0, 3.0]

    asyncio.run(scenario())


def test_right_without_an_end_is_reviewed_every_ten_seconds() -> None:
    async def scenario() -> None:
        async with session_from("18:00", "{user: boss}") as setup:
            setup.actions[100] = lambda: setup.maps.use("{user: anne}")
            await setup.run()
            assert setup.slept == [10.0] * 100

    asyncio.run(scenario())
