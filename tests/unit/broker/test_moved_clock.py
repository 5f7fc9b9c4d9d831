"""The end of a window, with the clock moved under the broker. Time passes when it sleeps, and when
the test says so: no test here waits."""

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
    """In the place of MapStore: no file, no polling."""

    def __init__(self, grant: str, warn: str = "[10m, 1m]") -> None:
        self.use(grant, warn)

    def use(self, grant: str, warn: str = "[10m, 1m]") -> None:
        vm1 = f"{{socket: /vm1, allow: [{grant}]}}"
        text = f"timezone: Europe/Berlin\nwarn: {warn}\nvms: {{vm1: {vm1}}}"
        self.current: VmMap = parse_map(text.encode(), "m")


class SamePerson:
    """In the place of People: no directory."""

    async def again(self, asker: Asker) -> Asker:
        return asker


class World:
    """One session of the boss's, from a moment on a Tuesday in November."""

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
            relay=Relay(Connection(theirs), os.getpid(), 0),
            grace=60,
            audit=audit,
            records=records,
            until=rules.decide(rules.current(), asker, "vm1").until,
        )
        self._theirs = theirs
        self.slept: list[float] = []
        self.jumps: dict[int, Callable[[], None]] = {}

    async def sleep(self, seconds: float) -> None:
        """Time passes; after so many sleeps, what the test has arranged happens."""
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        self.jumps.pop(len(self.slept), lambda: None)()
        await asyncio.sleep(0)
        assert len(self.slept) < 5000, "it never ends"

    def set_clock(self, moment: str) -> None:
        self.now = datetime.fromisoformat(f"2026-11-24 {moment}").replace(tzinfo=BERLIN)

    async def run(self) -> list[tuple[str, str]]:
        """Until the session is over: what was said, and the end."""
        async with asyncio.timeout(20):
            await self.review.follow(self.session)
        return self.said()

    def said(self) -> list[tuple[str, str]]:
        heard: list[tuple[str, str]] = []
        while True:
            try:
                message: dict[str, Any] = json.loads(self.ours.recv(65536))
            except BlockingIOError:
                return heard
            heard.append((message["event"], message["reason"]))

    def close(self) -> None:
        for each in (self.ours, self._theirs, self._null):
            each.close()
        os.close(self.pidfd)


@asynccontextmanager
async def world(moment: str, grant: str = EVENING, warn: str = "[10m, 1m]") -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        made = World(moment, Maps(grant, warn), Path(directory))
        try:
            yield made
        finally:
            made.close()


OVER = ("end", "you may no longer use 'vm1': your window is over")


def test_evening_goes_by() -> None:
    async def story() -> None:
        async with world("18:00") as here:
            assert await here.run() == [
                ("notice", "your time at 'vm1' ends in 10 minutes, at 22:00"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00"),
                OVER,
            ]
            assert here.now.strftime("%H:%M:%S") == "22:00:00"
            assert max(here.slept) <= 10  # so that a moved clock is soon seen

    asyncio.run(story())


def test_who_comes_after_a_warning_was_due_is_told_by_ready_alone() -> None:
    async def story() -> None:
        async with world("21:55") as here:
            assert await here.run() == [
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00"),
                OVER,
            ]

    asyncio.run(story())


def test_warnings_are_the_maps() -> None:
    async def story() -> None:
        async with world("18:00", warn="[1h, 90s]") as here:
            assert [reason for _, reason in await here.run()][:2] == [
                "your time at 'vm1' ends in 1 hour, at 22:00",
                "your time at 'vm1' ends in 2 minutes, at 22:00",
            ]
        async with world("18:00", warn="[]") as here:
            assert await here.run() == [OVER]

    asyncio.run(story())


def test_clock_set_forward_over_the_end() -> None:
    """By a person or by the network's time: the session ends within ten seconds of it."""

    async def story() -> None:
        async with world("18:00") as here:
            here.jumps[5] = lambda: here.set_clock("23:30")
            assert await here.run() == [OVER]
            assert len(here.slept) <= 6

    asyncio.run(story())


def test_clock_set_forward_to_shortly_before_the_end() -> None:
    async def story() -> None:
        async with world("18:00") as here:
            here.jumps[5] = lambda: here.set_clock("21:57")
            assert await here.run() == [
                ("notice", "your time at 'vm1' ends in 3 minutes, at 22:00"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00"),
                OVER,
            ]

    asyncio.run(story())


def test_clock_set_back_warns_again_only_for_another_end() -> None:
    async def story() -> None:
        async with world("21:45") as here:
            here.jumps[40] = lambda: here.set_clock("21:00")  # the ten minutes were told
            assert await here.run() == [
                ("notice", "your time at 'vm1' ends in 10 minutes, at 22:00"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 22:00"),
                OVER,
            ]

    asyncio.run(story())


def test_map_that_shortens_the_window_warns_of_the_new_end() -> None:
    async def story() -> None:
        async with world("18:00") as here:
            shorter = "{user: boss, when: Mon-Fri 17:00-18:05}"
            here.jumps[1] = lambda: here.maps.use(shorter)
            assert await here.run() == [
                ("notice", "your time at 'vm1' ends in 5 minutes, at 18:05"),
                ("notice", "your time at 'vm1' ends in 1 minute, at 18:05"),
                OVER,
            ]

    asyncio.run(story())


def test_map_that_takes_the_grant_away_ends_at_once() -> None:
    async def story() -> None:
        async with world("18:00") as here:
            here.jumps[3] = lambda: here.maps.use("{user: anne}")
            assert await here.run() == [
                ("end", "you may no longer use 'vm1': no grant names you"),
            ]
            assert len(here.slept) == 3

    asyncio.run(story())


def test_map_that_brings_the_end_nearer_is_minded_at_once() -> None:
    """Not only at the next look: the session slept for ten seconds, and the end comes in three."""

    async def story() -> None:
        async with world("18:00:00") as here:
            here.review._seats.add(here.session)
            slept = asyncio.Event()

            async def sleep(seconds: float) -> None:
                here.slept.append(seconds)
                if len(here.slept) == 1:
                    slept.set()
                    await asyncio.sleep(60)
                here.now += timedelta(seconds=seconds)

            here.review._sleep = sleep
            reviewing = asyncio.ensure_future(here.run())
            await slept.wait()
            here.set_clock("18:04:57")
            here.maps.use("{user: boss, when: Mon-Fri 17:00-18:05}", "[]")
            await here.review.all()
            assert await reviewing == [OVER]
            assert here.slept == [10.0, 3.0]

    asyncio.run(story())


def test_right_without_an_end_is_looked_at_now_and_then() -> None:
    async def story() -> None:
        async with world("18:00", "{user: boss}") as here:
            here.jumps[100] = lambda: here.maps.use("{user: anne}")
            await here.run()
            assert here.slept == [10.0] * 100

    asyncio.run(story())
