"""Sessions, their channels, and the seats they hold.

A session is one user at one VM over one SSH connection. It lives as long as its gate's connection
to us and the SSH connection's own process: both the kernel's to end, so nothing here goes stale.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.peers import Anchor, Peer, lineage
from spicetunnel.broker.people import Asker
from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError
from spicetunnel.policy.decide import Identity
from spicetunnel.spice.link import (
    CHANNEL_NOT_AVAILABLE,
    CHANNEL_TYPES,
    NEED_SECURED,
    Link,
    LinkError,
)

MAX_CHANNELS = 64  # a viewer opens about 7
KNOWN_TYPES = frozenset(CHANNEL_TYPES.values())  # what a grant can name


@dataclass(slots=True)
class Channel:
    """One SPICE connection handed to the gate; `vm` is our duplicate of the VM's end."""

    number: int
    link: Link
    vm: socket.socket
    opened: float = field(default_factory=time.monotonic)
    up: int = 0
    down: int = 0


@dataclass(slots=True, eq=False)
class Session:
    """One person at one VM. `denied` are the SPICE channels the grant does not give."""

    asker: Asker
    vm_name: str
    vm_socket: str
    denied: frozenset[str]
    gate: GateConnection
    anchor: Anchor
    audit: Audit
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    channels: dict[int, Channel] = field(default_factory=dict)
    over: asyncio.Future[str] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _opened: int = 0
    _watches: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        return self.over.done()

    @property
    def is_live(self) -> bool:
        """Whether neither we nor the SSH connection have ended it."""
        return not self.ended and self.anchor.alive

    def log(self, event: str, **fields: object) -> None:
        self.audit.write(
            event,
            session=self.id,
            **self.asker.fields,
            vm=self.vm_name,
            **fields,
        )

    def admit(self, link: Link) -> None:
        """Raises LinkError where this channel may not be opened in this session now."""
        has_main = any(channel.link.is_main for channel in self.channels.values())
        if self.ended:
            raise LinkError("the session has ended", CHANNEL_NOT_AVAILABLE)
        if self._denies(link):
            # Not 7, "permission denied": spice-gtk 0.42 warns of an unhandled error there, and
            # takes this one in silence.
            raise LinkError(f"{link.type_name} is not granted", NEED_SECURED)
        if len(self.channels) >= MAX_CHANNELS:
            raise LinkError(f"more than {MAX_CHANNELS} channels", CHANNEL_NOT_AVAILABLE)
        if link.is_main and has_main:
            # QEMU would throw out the viewer that is there.
            raise LinkError("the session has a viewer already", CHANNEL_NOT_AVAILABLE)
        if not link.is_main and not has_main:
            raise LinkError("no main channel is open", CHANNEL_NOT_AVAILABLE)

    def hand_over(self, link: Link, viewer: socket.socket, vm: socket.socket) -> bool:
        """Give both ends to the gate and keep the VM's. False where the gate does not take them."""
        self._opened += 1
        number = self._opened
        about: dict[str, object] = {
            "channel": number,
            "type": link.type_name,
            "id": link.channel_id,
        }
        if not self.gate.send({"event": "channel", **about}, (viewer.fileno(), vm.fileno())):
            return False
        self.channels[number] = Channel(number, link, vm)
        self.log("channel", decision="allow", **about)
        return True

    def count(self, number: int, up: int, down: int) -> None:
        """Note the byte counts the gate reports. A number it does not hold is ignored."""
        channel = self.channels.get(number)
        if channel is not None:
            channel.up, channel.down = up, down

    def restrict(self, denied: frozenset[str]) -> None:
        """From now on without these channels; those that are open are cut."""
        self.denied = denied
        for channel in self.channels.values():
            if self._denies(channel.link):
                _cut(channel.vm)

    def _denies(self, link: Link) -> bool:
        # A grant that denies something can not have meant to give a type it cannot name.
        return link.type_name in self.denied or bool(
            self.denied and link.type_name not in KNOWN_TYPES
        )

    def close_channel(self, number: int, reason: str) -> Channel | None:
        """Close and log one. `reason` counts only where it was not the session's own end."""
        channel = self.channels.pop(number, None)
        if channel is None:
            return None
        if self.ended:
            reason = self.over.result()
        _cut(channel.vm)
        channel.vm.close()
        self.log(
            "channel-end",
            channel=number,
            type=channel.link.type_name,
            bytes_up=channel.up,
            bytes_down=channel.down,
            seconds=round(time.monotonic() - channel.opened, 3),
            reason=reason,
        )
        return channel

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
            _cut(channel.vm)

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
        seconds = (datetime.now(UTC) - self.since).total_seconds()
        self.log(
            "session-end",
            seconds=round(seconds, 3),
            channels=self._opened,
            reason=self.over.result(),
        )


class SessionTable:
    """All live sessions: at most one for each SSH connection, and one for each VM."""

    def __init__(self) -> None:
        self._by_anchor: dict[int, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_anchor.values()))

    def of(self, peer: Peer) -> Session | None:
        """The session whose SSH connection the peer's process belongs to, and whose user it is."""
        for pid in lineage(peer):
            session = self._by_anchor.get(pid)
            if session is not None and session.asker.uid == peer.uid and session.is_live:
                return session
        return None

    def at(self, vm_name: str) -> Session | None:
        """The session that holds the VM's seat."""
        return next((each for each in self if each.vm_name == vm_name and each.is_live), None)

    def require_free_connection(self, anchor: Anchor) -> None:
        """Raises UsageError where the SSH connection has a session already."""
        held = self._by_anchor.get(anchor.pid)
        if held is not None and held.is_live:
            raise UsageError(
                f"this SSH connection has a session at '{held.vm_name}' already",
                "open another connection for another VM: ssh -o ControlPath=none",
            )

    def take_seat(self, person: Identity, vm_name: str, *, wanted: bool, granted: bool) -> None:
        """Free the VM's seat for `person`, or raise BusyError.

        A held seat is taken only on request (`wanted`), and only from oneself or with the right to
        take over (`granted`).
        """
        holder = self.at(vm_name)
        if holder is None:
            return
        own = holder.asker.person.user == person.user
        may = granted or own
        if not (wanted and may):
            since = holder.since.astimezone().strftime("%H:%M")
            who = "you" if own else holder.asker.person.user
            hint = "--take-over ends that session" if may else f"ask {who} to leave, or try later"
            raise BusyError(f"'{vm_name}' is in use by {who} since {since}", hint)
        holder.revoke(BusyError(f"your seat at '{vm_name}' was taken over by {person.user}"))

    def add(self, session: Session) -> None:
        self._by_anchor[session.anchor.pid] = session

    def remove(self, session: Session) -> None:
        if self._by_anchor.get(session.anchor.pid) is session:
            del self._by_anchor[session.anchor.pid]


def _cut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # QEMU was quicker
