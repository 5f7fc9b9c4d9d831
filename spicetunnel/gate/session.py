"""One session: from the broker's `ready` until the person, the server or the network ends it."""

import os
import select
import socket
import sys
import time

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import Message, decode, encode, number, text
from spicetunnel.gate.relay import Channel, Relay
from spicetunnel.gate.terminal import Terminal

REPORT_INTERVAL = 5.0  # seconds between two reports of byte counts


class Session:
    """Serves the channels the broker hands over, and says what the broker tells it to say."""

    def __init__(self, broker: socket.socket, terminal: Terminal) -> None:
        self._broker = broker
        self._terminal = terminal
        self._poller = select.epoll()
        self._relay = Relay(self._poller)
        self._reported: dict[str, list[int]] = {}
        self._exit_code: int | None = None
        self._has_broker = True

    def run(self) -> int:
        """Serve until the end; the exit code."""
        self._broker.setblocking(False)
        self._poller.register(self._broker, select.EPOLLIN)
        self._watch_client()
        report_at = time.monotonic() + REPORT_INTERVAL
        while self._exit_code is None:
            for fd, events in self._poller.poll(REPORT_INTERVAL):
                self._dispatch(fd, events)
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + REPORT_INTERVAL
                self._report_usage()
                self._end_if_useless()
        return self._exit_code

    def _watch_client(self) -> None:
        # sshd closes its end of our stdout when the connection is gone: epoll then reports
        # an error on it, which it does unasked. stdin tells nothing: `ssh -n` ends it at once.
        try:
            self._poller.register(sys.stdout.fileno(), 0)
        except PermissionError:
            pass  # a regular file: a local run with its output kept

    def _dispatch(self, fd: int, events: int) -> None:
        if self._exit_code is not None:
            return
        if fd == self._broker.fileno():
            self._hear_broker()
        elif fd == sys.stdout.fileno():
            self._stop(os.EX_OK)  # the client left
        else:
            ended = self._relay.serve(fd, events)
            if ended is not None:
                self._report_closed(ended)

    def _hear_broker(self) -> None:
        try:
            packet, fds = fdpass.receive(self._broker, max_fds=2)
        except BlockingIOError:
            return
        if packet:
            self._obey(decode(packet), fds)
        else:
            self._lose_broker()

    def _obey(self, message: Message, fds: list[int]) -> None:
        event = text(message, "event")
        if (event == "channel") != (len(fds) == 2):
            fdpass.close_all(fds)
            raise ProtocolError(f"'{event}' came with {len(fds)} descriptors")
        if event == "channel":
            viewer, vm = (socket.socket(fileno=fd) for fd in fds)
            self._relay.add(number(message, "channel"), viewer, vm)
        elif event == "notice":
            self._terminal.trouble(event, text(message, "reason"), text(message, "hint", ""))
        elif event == "end":
            self._end(number(message, "code"), text(message, "reason"), text(message, "hint", ""))
        # Others come from a newer broker, and are for a newer gate.

    def _end(self, code: int, reason: str, hint: str) -> None:
        self._stop(code)
        self._terminal.trouble("end", reason, hint, code)

    def _stop(self, code: int) -> None:
        """Close what is open, so that the log gets its byte counts."""
        self._exit_code = code
        for channel in list(self._relay.channels.values()):
            self._relay.remove(channel)
            self._report_closed(channel)

    def _lose_broker(self) -> None:
        """The broker died: what is open runs on; what could be opened no longer can."""
        self._has_broker = False
        self._poller.unregister(self._broker)

    def _end_if_useless(self) -> None:
        """A moment after the last channel: its person has mostly ended the connection by then."""
        if not self._has_broker and not self._relay.channels:
            self._end(os.EX_SOFTWARE, "the server's broker has stopped", "connect again")

    def _report_closed(self, channel: Channel) -> None:
        self._reported.pop(str(channel.number), None)
        self._tell(
            {
                "op": "closed",
                "channel": channel.number,
                "up": channel.up.moved,
                "down": channel.down.moved,
                "by": channel.ended_by or "relay",
            }
        )

    def _report_usage(self) -> None:
        usage = {
            str(each.number): [each.up.moved, each.down.moved]
            for each in self._relay.channels.values()
        }
        if usage != self._reported:
            self._reported = usage
            self._tell({"op": "usage", "channels": usage})

    def _tell(self, message: Message) -> None:
        if not self._has_broker:
            return
        try:
            fdpass.send(self._broker, encode(message))
        except OSError:
            pass  # a report lost is better than a session; the broker's end shows as EOF
