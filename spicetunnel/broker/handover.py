"""Sessions of the broker before us, restarts and upgrades included.

From our first moment each is a session like any other: its seat is held, its channels can be cut.
The record says whose it is, and is our predecessor's own word; the relay's process gives the
duplicates; the kernel says whether the SSH connection and the very sockets are still those on
record. Its gate looks for us by itself, and says which session it waits for.
"""

import asyncio
from datetime import UTC, datetime

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.lifecycle import LAST_WORD, Lifecycle, lose_vm
from spicetunnel.broker.peers import Anchor, anchor_again, anchor_of, vm_end
from spicetunnel.broker.people import Asker
from spicetunnel.broker.records import ChannelRecord, Record, Records
from spicetunnel.broker.relays import Kept, KeptChannel, RelayError, Relays
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Channel, Session, Traffic
from spicetunnel.broker.vm import Place
from spicetunnel.common.errors import NotPermittedError, ProtocolError
from spicetunnel.common.names import is_session_id
from spicetunnel.common.protocol import Message, text
from spicetunnel.policy.decide import Identity
from spicetunnel.spice.link import Link


class Handover:
    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        records: Records,
        relays: Relays,
        seats: Seats,
        lifecycle: Lifecycle,
        audit: Audit,
        tunnel: str,
    ) -> None:
        """`tunnel`: the path of tunnel.sock."""
        self._records = records
        self._relays = relays
        self._seats = seats
        self._lifecycle = lifecycle
        self._audit = audit
        self._tunnel = tunnel

    async def adopt(self) -> None:
        """Take over the sessions on record, and end all others: before anybody may connect."""
        records = self._records.read_all()
        await asyncio.gather(*map(self._adopt, records))
        known = {record.id for record in records}
        try:
            strays = [name for name in self._relays.names() if name not in known]
        except RelayError as error:
            self._audit.write("fault", reason=error.reason)
        else:
            await asyncio.gather(*map(self._end_stray, strays))

    async def resume(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Serve the gate of such a session. Raises SpicetunnelError if it is not its gate."""
        session_id = text(request, "session")
        if not is_session_id(session_id):
            raise ProtocolError("'session' is not a session's id")
        session = self._seats.get(session_id)
        with anchor_of(gate.peer) as anchor:
            if session is None or session.gate or not _is_theirs(session, asker, anchor):
                raise NotPermittedError("this server does not know the session", "connect again")
        if session.ended:
            session.attended.set()
            raise session.over.result()
        gate.send({"event": "resumed"})
        session.attend(gate)
        await self._lifecycle.attend(session, gate)

    async def _adopt(self, record: Record) -> None:
        if record.ended:
            await self._give_up(record, record.ended)
            return
        anchor = anchor_again(record.anchor_pid, record.anchor_started)
        if anchor is None:
            await self._give_up(record, "the SSH connection is gone")
            return
        try:
            kept = await self._find(record)
        except RelayError as error:
            anchor.close()
            await self._give_up(record, error.reason)
            return
        session = self._session_of(record, anchor, kept)
        session.log("resume", channels=len(kept.channels))
        self._lifecycle.start(session)
        session.watch(asyncio.ensure_future(_close_unreported(session)))
        for number, channel in kept.channels.items():
            if channel.is_lost:
                lose_vm(session, number)

    async def _find(self, record: Record) -> Kept:
        """What the session's process kept. Raises RelayError."""
        most = len(record.channels)
        kept = await self._relays.find(record.id, record.relay_pid, record.relay_started, most)
        if _has_others(record, kept):
            kept.close()
            raise RelayError("its relay kept other sockets")
        return kept

    def _session_of(self, record: Record, anchor: Anchor, kept: Kept) -> Session:
        """Channels that have closed meanwhile are listed until the relay reports them."""
        session = Session(
            id=record.id,
            asker=_asker_of(record),
            vm_name=record.vm,
            place=Place(record.vm_socket, record.vm_born),
            keep=record.keep,
            anchor=anchor,
            relay=kept.relay,
            grace=record.grace,
            tunnel=self._tunnel,
            audit=self._audit,
            records=self._records,
            since=datetime.fromtimestamp(record.since, UTC),
            changes=datetime.now(UTC),  # at once: nothing is decided yet
            opened=record.opened,
            is_attached=any(not _link_of(each).is_main for each in record.channels),
            traffic=Traffic(record.closed_up, record.closed_down),
        )
        for each in record.channels:
            channel = Channel(each.number, _link_of(each), None)
            if found := kept.channels.get(each.number):
                channel.vm, channel.up, channel.down = found.vm, found.up, found.down
                channel.rules = _rules_of(each, found)
            session.channels[each.number] = channel
        return session

    async def _end_stray(self, session_id: str) -> None:
        try:
            await self._relays.end_stray(session_id)
        except RelayError as error:
            self._audit.write("fault", session=session_id, reason=error.reason)

    async def _give_up(self, record: Record, reason: str) -> None:
        """Kill the session's process: we have no duplicates of its VM's ends to cut."""
        try:
            await self._relays.kill(record.relay_pid, record.relay_started)
        except RelayError as failure:
            self._audit.write("fault", session=record.id, reason=failure.reason)
        self._relays.forget(record.id)
        self._bury(record, reason)

    def _bury(self, record: Record, reason: str) -> None:
        """Log the session's end, so that every open in the log has one, and drop its record."""
        about = {"session": record.id, **_asker_of(record).fields, "vm": record.vm}
        for each in record.channels:
            channel = {"channel": each.number, "type": _link_of(each).type_name}
            self._audit.write("channel-end", **about, **channel, reason=reason)
        seconds = round(datetime.now(UTC).timestamp() - record.since, 3)
        end = {"seconds": seconds, "channels": record.opened, "reason": reason}
        self._audit.write("session-end", **about, **end)
        self._records.drop(record.id)


async def _close_unreported(session: Session) -> None:
    """Close channels whose end the old broker had heard of, but did not record."""
    await asyncio.sleep(LAST_WORD)
    for channel in list(session.channels.values()):
        if channel.vm is None:
            session.close_channel(channel.number, "closed during the broker's restart")


def _is_theirs(session: Session, asker: Asker, anchor: Anchor) -> bool:
    theirs = (asker.uid, asker.as_name, anchor.pid, anchor.started)
    known = session.anchor
    return theirs == (session.asker.uid, session.asker.as_name, known.pid, known.started)


def _has_others(record: Record, kept: Kept) -> bool:
    """Whether the relay gave other sockets than those on record: cutting them would cut nothing."""
    ends = {each.number: (each.inode, each.peer_pid) for each in record.channels}
    return any(ends.get(number) != vm_end(each.vm) for number, each in kept.channels.items())


def _rules_of(record: ChannelRecord, kept: KeptChannel) -> frozenset[str] | None:
    """The filter that record and relay agree on. Otherwise the channel counts as not filtered: one
    that must be is then cut.
    """
    noted = None if record.filter is None else frozenset(record.filter)
    return noted if noted == kept.rules else None


def _link_of(record: ChannelRecord) -> Link:
    return Link(record.connection_id, record.channel_type, record.channel_id)


def _asker_of(record: Record) -> Asker:
    """Whose the session is, until the first review looks them up."""
    person = Identity(record.uid, record.user, frozenset())
    doubt = "not looked up since the broker's restart"
    return Asker(record.uid, person, record.client or None, doubt, record.via)
