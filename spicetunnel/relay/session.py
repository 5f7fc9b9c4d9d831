"""One session's process: docs/protocol.md, section 4.

The broker hands it the channels, both ends of each, and it moves their bytes. It keeps them when
the broker dies, and gives the next one its duplicates. It ends when the broker says so, when its
last `grace` seconds have had no broker, and when the relay is stopped.
"""

import os
import select
import socket
import time
from collections import deque

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.processes import peer_of
from spicetunnel.common.protocol import (
    VERSION,
    Message,
    decode,
    encode,
    number,
    text,
)
from spicetunnel.relay.channels import Channel, Channels
from spicetunnel.relay.filtered import FilteredChannel, channel_of, rules_of

REPORT_INTERVAL = 2.0  # seconds between two reports of byte counts
SHORT_INTERVAL = 0.5  # seconds between two looks at the clock, where something is waited for
HELD = 5.0  # seconds that a viewer is kept from seeing its VM's end, without the broker's word
_A_PACKET = 100  # channels in one packet, below the kernel's limit of 253 descriptors


class StoppedError(Exception):
    """SIGTERM: the relay is stopped, and this session with it."""


class Session:
    def __init__(
        self,
        session_id: str,
        listener: socket.socket,
        broker_uid: int,
        poller: select.epoll,
        grace: int,
    ) -> None:
        self._id = session_id
        self._listener = listener
        self._broker_uid = broker_uid
        self._poller = poller
        self._grace = grace
        self._channels = Channels(poller)
        self._broker: socket.socket | None = None
        self._newcomer: socket.socket | None = None  # connected, but has not said `attach` yet
        self._outbox: deque[Message] = deque()
        self._away_since = time.monotonic()
        self._held_since: dict[int, float] = {}
        self._reported: dict[str, list[int]] = {}
        self._look_at = self._report_at = 0.0
        self._over = False
        poller.register(listener, select.EPOLLIN)

    def serve(self) -> None:
        """Serve until the session is over; then close and report every channel."""
        try:
            while not self._over:
                self.turn()
        except StoppedError:
            self._tell({"event": "stopping"})
        for channel in list(self._channels.by_number.values()):
            self._channels.remove(channel)
            self._report_closed(channel)

    def greet(self, broker: socket.socket) -> None:
        """Make this connection the broker's, and send it the channels with their VM's ends."""
        if self._broker:
            self._lose_broker()
        broker.setblocking(False)
        try:
            self._introduce(broker)
        except OSError:
            broker.close()  # the broker has died again, or does not read; another will come
            return
        self._broker = broker
        self._poller.register(broker, select.EPOLLIN)
        # Other waiting messages are outdated: their content is part of the introduction.
        self._outbox = deque(each for each in self._outbox if each["event"] == "closed")
        self._flush()

    def _introduce(self, broker: socket.socket) -> None:
        channels = sorted(self._channels.by_number.items())
        hello: Message = {"event": "begun", "v": VERSION, "session": self._id, "filters": True}
        fdpass.send(broker, encode({**hello, "pid": os.getpid(), "channels": len(channels)}))
        for first in range(0, len(channels), _A_PACKET):
            part = channels[first : first + _A_PACKET]
            kept = {str(each): _state_of(channel) for each, channel in part}
            fds = tuple(channel.vm.fileno() for _, channel in part)
            rules = {str(each): rules_of(channel) for each, channel in part}
            filters = {each: rule for each, rule in rules.items() if rule is not None}
            also = {"filters": filters} if filters else {}
            fdpass.send(broker, encode({"event": "kept", "channels": kept, **also}), fds)

    def _pause(self) -> float:
        return SHORT_INTERVAL if self._held_since or not self._broker else REPORT_INTERVAL

    def turn(self, seconds: float | None = None) -> None:
        """Handle what is ready, or becomes ready within `seconds`: by default, until there is
        something to look after.
        """
        others = {}
        for fd, events in self._poller.poll(self._pause() if seconds is None else seconds):
            channel = self._channels.serve(fd, events)
            if channel is None:
                others[fd] = events
            elif channel.done or channel.is_held:
                self._follow_up(channel)
        if others:
            self._serve_others(others)
        self._look_at_the_clock(time.monotonic())

    def _serve_others(self, ready: dict[int, int]) -> None:
        # After the channels, since these bring new descriptors: a new one may have the number of
        # one that was closed in this round, and must not get its events.
        to_broker, to_newcomer, to_listener = (
            ready.get(each.fileno(), 0) if each else 0
            for each in (self._broker, self._newcomer, self._listener)
        )
        if to_broker:
            self._hear_broker(to_broker)
        if to_newcomer:
            self._hear_newcomer()
        if to_listener:
            self._accept()

    def _follow_up(self, channel: Channel) -> None:
        if channel.done:
            self._report_closed(channel)
        elif channel.is_held and channel.number not in self._held_since:
            self._held_since[channel.number] = time.monotonic()
            self._tell({"event": "lost", "channel": channel.number})

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        _, uid = peer_of(connection)
        if uid != self._broker_uid:
            connection.close()
            return
        self._drop_newcomer()
        self._newcomer = connection
        self._poller.register(connection, select.EPOLLIN)

    def _hear_newcomer(self) -> None:
        """Wait for `attach`. The parent connects too, to learn our pid, but says nothing."""
        newcomer, self._newcomer = self._newcomer, None
        if newcomer is None:
            return
        self._poller.unregister(newcomer)
        try:
            packet, _ = fdpass.receive(newcomer)
        except OSError:
            packet = b""
        if packet and text(decode(packet), "op") == "attach":
            self.greet(newcomer)
        else:
            newcomer.close()

    def _drop_newcomer(self) -> None:
        if self._newcomer:
            self._poller.unregister(self._newcomer)
            self._newcomer.close()
            self._newcomer = None

    def _hear_broker(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if not self._broker or not events & ~select.EPOLLOUT:
            return
        try:
            packet, fds = fdpass.receive(self._broker, max_fds=2)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if packet:
            self._obey(decode(packet), fds)
        else:
            self._lose_broker()

    def _obey(self, message: Message, fds: list[int]) -> None:
        operation = text(message, "op")
        if (operation == "channel") != (len(fds) == 2):
            fdpass.close_all(fds)
            raise ProtocolError(f"'{operation}' came with {len(fds)} descriptors")
        if operation == "channel":
            viewer, vm = (socket.socket(fileno=fd) for fd in fds)
            self._channels.add(channel_of(message, viewer, vm))
        elif operation == "release":
            self._release(number(message, "channel"))
        elif operation == "end":
            self._over = True
        # Others come from a newer broker, and are for a newer relay.

    def _release(self, channel_number: int) -> None:
        self._held_since.pop(channel_number, None)
        channel = self._channels.by_number.get(channel_number)
        if channel:
            channel.release()
            self._channels.settle(channel)
            self._follow_up(channel)

    def _look_at_the_clock(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = now + SHORT_INTERVAL
        for channel_number, since in list(self._held_since.items()):
            if now - since > HELD:
                self._release(channel_number)
        if self._broker:
            self._report_usage(now)
        elif now - self._away_since > self._grace:
            self._over = True

    def _report_closed(self, channel: Channel) -> None:
        self._held_since.pop(channel.number, None)
        self._reported.pop(str(channel.number), None)
        report: Message = {
            "event": "closed",
            "channel": channel.number,
            "up": channel.up.moved,
            "down": channel.down.moved,
            "by": channel.ended_by or "relay",
        }
        if channel.ended_by == "filter" and isinstance(channel, FilteredChannel):
            report["why"] = channel.refusal
        self._tell(report)

    def _report_usage(self, now: float) -> None:
        if now < self._report_at or self._outbox:
            return
        self._report_at = now + REPORT_INTERVAL
        usage = {
            str(each.number): [each.up.moved, each.down.moved]
            for each in self._channels.by_number.values()
        }
        if usage != self._reported:
            self._reported = usage
            self._tell({"event": "usage", "channels": usage})

    def _tell(self, message: Message) -> None:
        """Send when the broker has read the messages before it, or to the next broker.

        The outbox never holds more than a few messages per channel.
        """
        self._outbox.append(message)
        self._flush()

    def _flush(self) -> None:
        while self._broker and self._outbox:
            try:
                fdpass.send(self._broker, encode(self._outbox[0]))
            except BlockingIOError:
                self._poller.modify(self._broker, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self._lose_broker()
                return
            self._outbox.popleft()
        if self._broker:
            self._poller.modify(self._broker, select.EPOLLIN)

    def _lose_broker(self) -> None:
        """The broker died: the channels go on, for the next one."""
        if self._broker:
            self._poller.unregister(self._broker)
            self._broker.close()
            self._broker = None
            self._away_since = time.monotonic()


def _state_of(channel: Channel) -> list[object]:
    """Bytes from viewer to VM, bytes from VM to viewer, and whether the VM has closed it."""
    return [channel.up.moved, channel.down.moved, channel.is_held]
