"""One session: a person at a VM over one SSH connection.

It lives as long as its gate's connection to us and the SSH connection's own process: both the
kernel's to end, so nothing here goes stale. It outlives us: see `records`.
"""

import asyncio
import secrets
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.channels import Channel, denies
from spicetunnel.broker.dial import Place
from spicetunnel.broker.moments import iso
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.peers import Anchor
from spicetunnel.broker.people import Asker
from spicetunnel.broker.records import Record, Records
from spicetunnel.broker.traffic import Traffic
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.spice.link import CHANNEL_NOT_AVAILABLE, NEED_SECURED, Link, LinkError


@dataclass(slots=True, eq=False)
class Session:
    """`denied` are the SPICE channels the grant does not give; `keep`: it stays when its VM stops.

    `until` is when the person's right ends, None for never.
    """

    asker: Asker
    vm_name: str
    place: Place
    denied: frozenset[str]
    keep: bool
    gate: GateConnection
    anchor: Anchor
    grace: int  # seconds it may go on without a broker
    audit: Audit
    records: Records
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    until: datetime | None = None
    opened: int = 0  # channels, in all its life
    channels: dict[int, Channel] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    vm_lost: asyncio.Event = field(default_factory=asyncio.Event)
    reviewed: asyncio.Event = field(default_factory=asyncio.Event)  # out of turn
    over: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _watches: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def user(self) -> str:
        return self.asker.person.user

    @property
    def ended(self) -> bool:
        return self.over.done()

    @property
    def is_live(self) -> bool:
        """Whether neither we nor the SSH connection have ended it."""
        return not self.ended and self.anchor.alive

    def log(self, event: str, **fields: object) -> None:
        about = {"session": self.id, **self.asker.fields, "vm": self.vm_name}
        self.audit.write(event, **about, **fields)

    def admit(self, link: Link, limit: int) -> None:
        """Raises LinkError where this channel may not be opened in this session now."""
        has_main = any(channel.link.is_main for channel in self.channels.values())
        if self.ended:
            raise LinkError("the session has ended", CHANNEL_NOT_AVAILABLE)
        if denies(self.denied, link):
            # Not 7, "permission denied": spice-gtk 0.42 warns of an unhandled error there, and
            # takes this one in silence.
            raise LinkError(f"{link.type_name} is not granted", NEED_SECURED)
        if len(self.channels) >= limit:
            raise LinkError(f"more than {limit} channels", CHANNEL_NOT_AVAILABLE)
        if link.is_main and has_main:
            # QEMU would throw out the viewer that is there.
            raise LinkError("the session has a viewer already", CHANNEL_NOT_AVAILABLE)
        if not link.is_main and not has_main:
            raise LinkError("no main channel is open", CHANNEL_NOT_AVAILABLE)

    def hand_over(self, link: Link, viewer: socket.socket, vm: socket.socket) -> bool:
        """Give both ends to the gate and keep the VM's. False where the gate does not take them."""
        self.opened += 1
        number = self.opened
        about = {"channel": number, "type": link.type_name, "id": link.channel_id}
        # On record and in the log first: what a gate holds must be known, whenever we die.
        self.channels[number] = Channel(number, link, vm)
        self.write_record()
        self.records.keep(self.id, vm.fileno())
        self.log("channel", decision="allow", **about)
        if not self.gate.send({"event": "channel", **about}, (viewer.fileno(), vm.fileno())):
            self.close_channel(number, "the gate did not take it")
            return False
        return True

    def count(self, number: int, up: int, down: int) -> None:
        """Note the byte counts the gate reports. A number it does not hold is ignored."""
        channel = self.channels.get(number)
        if channel is not None:
            channel.up, channel.down = up, down

    def measure(self) -> None:
        """Take the present counts for the rates."""
        self.traffic.sample(self.channels.values())

    def restrict(self, denied: frozenset[str]) -> None:
        """From now on without these channels; those that are open are cut."""
        self.denied = denied
        for channel in self.channels.values():
            if denies(denied, channel.link):
                channel.cut()

    def close_channel(self, number: int, reason: str) -> Channel | None:
        """Close and log one. `reason` counts only where it was not the session's own end."""
        channel = self.channels.pop(number, None)
        if channel is None:
            return None
        channel.cut()
        channel.vm.close()
        self.traffic.close(channel)
        if not self.ended:
            self.write_record()
        self.log(
            "channel-end",
            channel=number,
            type=channel.link.type_name,
            bytes_up=channel.up,
            bytes_down=channel.down,
            seconds=round(time.monotonic() - channel.opened, 3),
            reason=self.over.result() if self.ended else reason,
        )
        return channel

    def ready(self, title: str, password: str = "") -> None:
        """Have the viewer connect now: at first, and after a restart of the VM."""
        about = {"session": self.id, "vm": self.vm_name, "title": title, "until": iso(self.until)}
        secret = {"password": password} if password else {}
        self.gate.send({"event": "ready", **about, **secret, "grace": self.grace})

    def tell(self, event: str, reason: str, hint: str = "") -> None:
        """Say something to the person; the session goes on."""
        self.gate.send({"event": event, "reason": reason, "hint": hint})

    def revoke(self, error: SpicetunnelError) -> None:
        """Cut the session's traffic now, and tell its person why. Idempotent.

        The cut is the kernel's: it needs nothing of the gate.
        """
        if self.ended:
            return
        self.gate.send(
            {"event": "end", "code": error.exit_code, "reason": error.reason, "hint": error.hint}
        )
        self.over.set_result(error.reason)
        for channel in self.channels.values():
            channel.cut()

    def watch(self, task: asyncio.Future[None]) -> None:
        """Let `task` run no longer than the session."""
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    def finish(self, reason: str) -> None:
        """Close and log what is left, after the gate's last word. `reason` counts if none stood."""
        if not self.ended:
            self.over.set_result(reason)
        for number in list(self.channels):
            self.close_channel(number, reason)
        for task in self._watches:
            task.cancel()
        self.anchor.close()
        self.records.drop(self.id)
        self.log(
            "session-end",
            seconds=round((datetime.now(UTC) - self.since).total_seconds(), 3),
            channels=self.opened,
            bytes_up=self.traffic.up,
            bytes_down=self.traffic.down,
            reason=self.over.result(),
        )

    def write_record(self) -> None:
        asker = self.asker
        self.records.write(
            Record(
                id=self.id,
                uid=asker.uid,
                as_name=asker.as_name,
                via=asker.via,
                user=self.user,
                client=asker.client or "",
                vm=self.vm_name,
                vm_socket=self.place.socket,
                vm_born=self.place.born,
                keep=self.keep,
                since=self.since.timestamp(),
                anchor_pid=self.anchor.pid,
                anchor_started=self.anchor.started,
                opened=self.opened,
                channels=tuple(channel.record() for channel in self.channels.values()),
            )
        )
