"""One session: a person at a VM over one SSH connection, and its channels.

It lives as long as its gate, its SSH connection's own process and its relay process: all three the
kernel's to end, so nothing here goes stale. It outlives us: see `handover`.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection, with_times
from spicetunnel.broker.peers import Anchor, vm_end
from spicetunnel.broker.people import Asker
from spicetunnel.broker.records import ChannelRecord, Record, RecordError, Records
from spicetunnel.broker.relays import Relay
from spicetunnel.broker.vm import Place
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import Message
from spicetunnel.policy.decide import Decision
from spicetunnel.policy.moments import instant, zone_name
from spicetunnel.spice.link import (
    CHANNEL_NOT_AVAILABLE,
    NEED_SECURED,
    VERSION_MISMATCH,
    Link,
    LinkError,
)

LOSS_TOLD = 2.0  # seconds for a gate to say that its VM has gone
STALE = 10.0  # seconds after which the last rate says nothing of now
_MOST_UNSAID = 16  # messages for a gate that has not come back yet


@dataclass(slots=True)
class Channel:
    """One SPICE connection, which the relay moves.

    `vm` is our duplicate of the VM's end; None where it ended while there was no broker. `rules`:
    what the relay's filter lets through between viewer and agent; None: everything, unread.
    """

    number: int
    link: Link
    vm: socket.socket | None
    rules: frozenset[str] | None = None
    opened: float = field(default_factory=time.monotonic)
    up: int = 0
    down: int = 0
    why_cut: str = ""  # where the session goes on without it
    is_lost: bool = False  # the VM has closed it, and the viewer does not see it yet

    def record(self) -> ChannelRecord:
        link = self.link
        inode, peer_pid = vm_end(self.vm) if self.vm else (0, 0)
        rules = None if self.rules is None else sorted(self.rules)
        about = (link.connection_id, link.channel_type, link.channel_id)
        return ChannelRecord(self.number, *about, inode, peer_pid, rules)

    def cut(self) -> None:
        """End the traffic, whoever holds duplicates of the socket: the kernel does it."""
        try:
            if self.vm:
                self.vm.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU was quicker

    def close(self) -> None:
        self.cut()
        if self.vm:
            self.vm.close()


class Traffic:
    """The bytes that the relay has moved in a session, and its rates in bytes per second."""

    def __init__(self, closed_up: int = 0, closed_down: int = 0) -> None:
        """`closed_up`, `closed_down`: the bytes of channels that are closed already."""
        self.up = self.closed_up = closed_up
        self.down = self.closed_down = closed_down
        self._rates = (0.0, 0.0)
        self._sampled = time.monotonic()

    @property
    def rates(self) -> tuple[float, float]:
        """Up and down, between the last two samples."""
        return self._rates if time.monotonic() - self._sampled < STALE else (0.0, 0.0)

    def close(self, channel: Channel) -> None:
        """Add the final counts of a channel that is closed."""
        self.closed_up += channel.up
        self.closed_down += channel.down
        self.up, self.down = max(self.up, self.closed_up), max(self.down, self.closed_down)

    def sample(self, channels: list[Channel]) -> None:
        """Add up the open channels, and compute the rates."""
        up = self.closed_up + sum(each.up for each in channels)
        down = self.closed_down + sum(each.down for each in channels)
        now = time.monotonic()
        seconds = max(now - self._sampled, 0.001)
        self._rates = max(up - self.up, 0) / seconds, max(down - self.down, 0) / seconds
        self.up, self.down, self._sampled = up, down, now


@dataclass(slots=True, eq=False)
class Session:
    """`allowed` and `agent`: what the grant gives, see `policy.models.Grant`; `keep`: it stays when
    its VM stops; `renewing`: we cut its main channel, for another viewer to come.

    `until` is when the person's right ends, `changes` when the decision may be another one; None
    for never. Until it is `decided`, a session of the broker before opens no channel. `gate` is
    None until its gate has come back.
    """

    id: str
    asker: Asker
    vm_name: str
    place: Place
    keep: bool
    anchor: Anchor
    relay: Relay
    grace: int  # seconds it may go on without a broker
    audit: Audit
    records: Records
    tunnel: str = ""  # the path of tunnel.sock, for the client to compare with its own
    gate: GateConnection | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    allowed: frozenset[str] | None = frozenset()
    agent: frozenset[str] | None = frozenset()
    renewing: bool = False
    until: datetime | None = None
    changes: datetime | None = None
    zone: ZoneInfo | None = None  # the VM's, as is `limits` the grant's
    limits: tuple[str, ...] = ()
    opened: int = 0  # channels, in all its life
    is_attached: bool = False  # since the last `ready`, its viewer got past the main channel
    channels: dict[int, Channel] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    attended: asyncio.Event = field(default_factory=asyncio.Event)  # its gate has come
    vm_lost: asyncio.Event = field(default_factory=asyncio.Event)
    loss_told: asyncio.Event = field(default_factory=asyncio.Event)
    reviewed: asyncio.Event = field(default_factory=asyncio.Event)  # ahead of its turn
    over: asyncio.Future[SpicetunnelError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _about: dict[str, object] = field(init=False)  # in each line of the log
    _unsaid: deque[Message] = field(default_factory=lambda: deque(maxlen=_MOST_UNSAID))
    _watches: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._about = {"session": self.id, **self.asker.fields, "vm": self.vm_name}

    @property
    def user(self) -> str:
        return self.asker.person.user

    @property
    def ended(self) -> bool:
        return self.over.done()

    @property
    def is_live(self) -> bool:
        """Whether it has not ended, and its SSH connection is alive."""
        return not self.ended and self.anchor.alive

    def attend(self, gate: GateConnection) -> None:
        """Make `gate` the session's gate, and send it what it has missed."""
        self.gate = gate
        self.attended.set()
        while self._unsaid:
            gate.send(self._unsaid.popleft())

    def log(self, event: str, **fields: object) -> None:
        self.audit.write(event, **self._about, **fields)

    def log_refusal(self, event: str, reason: str) -> None:
        """As `log`, for what the person may cause without end."""
        self.audit.repeated(event, reason, decision="deny", **self._about)

    def admit(self, link: Link, limit: int) -> None:
        """Raises LinkError if this channel may not be opened in this session now."""
        has_main = any(channel.link.is_main for channel in self.channels.values())
        if self.ended:
            raise LinkError("the session has ended", CHANNEL_NOT_AVAILABLE)
        if not self._gives(link):
            # Not 7, "permission denied": spice-gtk 0.42 warns of an unhandled error there, and
            # takes this one in silence.
            raise LinkError(f"{link.type_name} is not granted", NEED_SECURED)
        if link.is_main and self.agent is not None:
            self._require_filter(link)
        if len(self.channels) >= limit:
            raise LinkError(f"more than {limit} channels", CHANNEL_NOT_AVAILABLE)
        if link.is_main and has_main:
            # QEMU would throw out the viewer that is there.
            raise LinkError("the session has a viewer already", CHANNEL_NOT_AVAILABLE)
        if not link.is_main and not has_main:
            raise LinkError("no main channel is open", CHANNEL_NOT_AVAILABLE)

    def hand_over(self, link: Link, viewer: socket.socket, vm: socket.socket) -> bool:
        """Give both ends to the relay, and keep a duplicate of the VM's. False if that failed.

        Raises LinkError where the channel cannot be put on record.
        """
        self.opened += 1
        number = self.opened
        rules = self.agent if link.is_main else None
        # Record and log come first: whenever we die, it is known what the relay may hold.
        channel = self.channels[number] = Channel(number, link, vm, rules)
        try:
            self.write_record()
        except RecordError as error:
            del self.channels[number]
            channel.close()
            raise LinkError(error.reason, CHANNEL_NOT_AVAILABLE) from None
        about = {"channel": number, "type": link.type_name, "id": link.channel_id}
        self.log("channel", decision="allow", **about)
        if self.relay.take(number, viewer, vm, hold=self.keep and link.is_main, rules=rules):
            if not link.is_main:
                self._tell_attached()
            return True
        self.close_channel(number, "the relay did not take it")
        return False

    def count(self, number: int, up: int, down: int) -> None:
        """Note the byte counts that the relay reports. A number it does not hold is ignored."""
        channel = self.channels.get(number)
        if channel is not None:
            channel.up, channel.down = up, down

    def measure(self) -> None:
        """Update the byte counts and rates of the session."""
        self.traffic.sample(list(self.channels.values()))

    def follow(self, decision: Decision) -> None:
        """Apply `decision`, which allows the session: cut the open channels that it denies."""
        self.until, self.changes = decision.until, decision.changes
        self.allowed, self.agent = decision.allowed, decision.agent
        self.zone, self.limits = decision.zone, decision.limits
        for channel in self.channels.values():
            if not self._gives(channel.link):
                channel.why_cut = "no longer granted"
                channel.cut()
            elif channel.link.is_main and not self._is_narrow_enough(channel):
                self._renew(channel)
        self.decided.set()

    def _gives(self, link: Link) -> bool:
        return self.allowed is None or link.type_name in self.allowed

    def _require_filter(self, link: Link) -> None:
        """Raises LinkError if this main channel cannot be filtered."""
        if not self.relay.filters:
            reason = "the relay of this session is of an earlier version, and cannot filter"
            raise LinkError(reason, CHANNEL_NOT_AVAILABLE)
        if not link.can_be_read:
            raise LinkError("the viewer speaks SPICE with long headers", VERSION_MISMATCH)

    def _is_narrow_enough(self, main: Channel) -> bool:
        if self.agent is None:
            return True
        return main.rules is not None and main.rules <= self.agent

    def _renew(self, main: Channel) -> None:
        """Cut a main channel that carries more than is granted now; the next one will not.

        Where the client has asked to `keep` the session, it hears `ready` again, and opens another
        viewer. Otherwise the person has to.
        """
        if main.why_cut:
            return
        main.why_cut = "it carries more than is granted now"
        self.renewing = self.keep
        hint = "" if self.keep else "connect your viewer again"
        self.tell("notice", f"your rights at '{self.vm_name}' have changed", hint)
        main.cut()

    def close_channel(self, number: int, reason: str) -> Channel | None:
        """Close and log a channel. `reason`: why, unless the session itself has ended."""
        channel = self.channels.pop(number, None)
        if channel is None:
            return None
        channel.close()
        self.traffic.close(channel)
        if not self.ended:
            self.update_record()
        self.log(
            "channel-end",
            channel=number,
            type=channel.link.type_name,
            bytes_up=channel.up,
            bytes_down=channel.down,
            seconds=round(time.monotonic() - channel.opened, 3),
            reason=self.over.result().reason if self.ended else channel.why_cut or reason,
        )
        return channel

    def ready(self, title: str, password: str = "") -> None:
        """Tell the client to connect its viewer: at first, and after a restart of the VM."""
        about: Message = {"session": self.id, "vm": self.vm_name, "title": title}
        about |= {"until": instant(self.until, self.zone), "zone": zone_name(self.until, self.zone)}
        about["limits"] = list(self.limits)
        secret = {"password": password} if password else {}
        self.is_attached = False
        self._say({"event": "ready", **about, **secret, "grace": self.grace, "tunnel": self.tunnel})

    def _tell_attached(self) -> None:
        """Tell the client, once a `ready`, that its viewer has more than the main channel. SPICE
        opens the others only when main has succeeded, the password included.
        """
        if not self.is_attached:
            self.is_attached = True
            self._say({"event": "attached"})

    def tell(
        self,
        event: str,
        reason: str,
        hint: str = "",
        times: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Tell the person something; the session goes on. `times`: as in a SpicetunnelError."""
        self._say({"event": event, "reason": reason, "hint": hint, **with_times(times)})

    async def announce_loss(self) -> None:
        """Tell the client that its VM has gone, before its viewer can see it: otherwise it would
        take the viewer's end for its person's doing.
        """
        self.loss_told.clear()
        self._say({"event": "waiting", "reason": "", "hint": "", "ack": True})
        try:
            async with asyncio.timeout(LOSS_TOLD):
                await self.loss_told.wait()
        except TimeoutError:
            pass  # a gate that does not answer harms only its own person

    def revoke(self, error: SpicetunnelError) -> None:
        """Cut the session's traffic now, and tell its person why. Idempotent.

        The cut is the kernel's: it needs nothing of gate and relay.
        """
        if self.ended:
            return
        self.over.set_result(error)
        self.update_record()  # first: if we die now, the next broker must not take it up
        if self.gate:
            self.gate.say_end("end", error)
        self.decided.set()
        for channel in self.channels.values():
            channel.cut()

    def fail(self, error: BaseException) -> None:
        """End the session because of a fault of ours; the others go on."""
        self.log("fault", reason=repr(error))
        self.revoke(SpicetunnelError("the server failed", "tell the admin of this server"))

    def watch(self, task: asyncio.Future[None]) -> None:
        """Cancel `task` when the session ends, and end the session if `task` fails."""
        self._watches.add(task)
        task.add_done_callback(self._unwatch)

    def _unwatch(self, task: asyncio.Future[None]) -> None:
        self._watches.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    def finish(self) -> None:
        """Close and log what is left, after the relay's last report."""
        reason = self.over.result().reason
        for number in list(self.channels):
            self.close_channel(number, reason)
        for task in self._watches:
            task.cancel()
        self.relay.close()
        self.anchor.close()
        self.records.drop(self.id)
        self.log(
            "session-end",
            seconds=round((datetime.now(UTC) - self.since).total_seconds(), 3),
            channels=self.opened,
            bytes_up=self.traffic.up,
            bytes_down=self.traffic.down,
            reason=reason,
        )

    def update_record(self) -> None:
        """Write it anew if that can be: the old one gives a broker after us no more than it had."""
        try:
            self.write_record()
        except RecordError:
            if self.ended:
                self.records.drop(self.id)

    def write_record(self) -> None:
        """Raises RecordError."""
        asker = self.asker
        self.records.write(
            Record(
                id=self.id,
                uid=asker.uid,
                via=asker.via,
                user=self.user,
                client=asker.client or "",
                vm=self.vm_name,
                vm_socket=self.place.socket,
                vm_born=self.place.born,
                keep=self.keep,
                since=self.since.timestamp(),
                grace=self.grace,
                anchor_pid=self.anchor.pid,
                anchor_started=self.anchor.started,
                relay_pid=self.relay.pid,
                relay_started=self.relay.started,
                opened=self.opened,
                closed_up=self.traffic.closed_up,
                closed_down=self.traffic.closed_down,
                channels=tuple(channel.record() for channel in self.channels.values()),
                ended=self.over.result().reason if self.ended else "",
            )
        )

    def _say(self, message: Message) -> None:
        if self.gate:
            self.gate.send(message)
        else:
            self._unsaid.append(message)
