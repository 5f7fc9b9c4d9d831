"""One session: from the person's `open` until the person, the server or the network ends it.

It outlives the broker: its channels run on, and the next broker gets them handed back.
"""

import os
import select
import socket
import sys
import time

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import Message, decode, number, text
from spicetunnel.gate.link import BrokerLink
from spicetunnel.gate.relay import Channel, Relay
from spicetunnel.gate.terminal import Terminal

REPORT_INTERVAL = 2.0  # seconds between two reports of byte counts
RETRY_INTERVAL = 0.5  # seconds between two tries to find a new broker
GRACE = 60  # seconds without a broker, where `ready` does not say how many


class Session:
    """Serves the channels the broker hands over, and says what the broker tells it to say.

    `asker` is what each request begins with: who asks, and from where. `keep`: it stays when its
    VM stops.
    """

    def __init__(self, link: BrokerLink, asker: Message, terminal: Terminal, *, keep: bool) -> None:
        self._link = link
        self._asker = asker
        self._keep = keep
        self._terminal = terminal
        self._poller = select.epoll()
        self._relay = Relay(self._poller)
        self._id = ""  # until the broker has said `ready`
        self._grace = GRACE
        self._reported: dict[str, list[int]] = {}
        self._report_at = 0.0
        self._unsaid: list[Message] = []  # ends of channels that no broker has heard of
        self._exit_code: int | None = None

    def run(self) -> int:
        """Serve until the end; the exit code."""
        self._poller.register(self._link.socket, select.EPOLLIN)
        self._watch_client()
        while self._exit_code is None:
            pause = REPORT_INTERVAL if self._link.is_known else RETRY_INTERVAL
            for fd, events in self._poller.poll(pause):
                self._dispatch(fd, events)
            self._look_after_link()
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
        if fd == sys.stdout.fileno():
            self._stop(os.EX_OK)  # the client left
        elif self._link.is_connected and fd == self._link.socket.fileno():
            self._hear_broker()
        else:
            ended = self._relay.serve(fd, events)
            if ended is not None:
                self._report_closed(ended)

    def _hear_broker(self) -> None:
        try:
            packet, fds = fdpass.receive(self._link.socket, max_fds=2)
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
            self._add_channel(message, *(socket.socket(fileno=fd) for fd in fds))
        elif event == "ready":
            self._begin(message)
        elif event == "resumed":
            self._link.confirm()
        elif event in {"notice", "waiting"}:
            self._terminal.trouble(event, text(message, "reason"), text(message, "hint", ""))
        elif event in {"end", "refused"}:
            self._end(
                event, number(message, "code"), text(message, "reason"), text(message, "hint", "")
            )
        # Others come from a newer broker, and are for a newer gate.

    def _add_channel(self, message: Message, viewer: socket.socket, vm: socket.socket) -> None:
        if self._keep and text(message, "type") == "main":
            self._relay.add(number(message, "channel"), viewer, vm, self._tell_loss)
        else:
            self._relay.add(number(message, "channel"), viewer, vm)

    def _tell_loss(self) -> None:
        """The VM has gone, and its viewer will: no client may take that for its person's doing.

        Said before the viewer can see it, so the client hears it first, over the same connection
        (SSH's channels share one stream). What comes of it is the broker's to say.
        """
        self._terminal.trouble("waiting", "", "")

    def _begin(self, ready: Message) -> None:
        """The session is open: the first time, or again after its VM's restart."""
        self._id = text(ready, "session")
        self._grace = number(ready, "grace") if "grace" in ready else GRACE
        self._terminal.ready(ready)

    def _end(self, event: str, code: int, reason: str, hint: str) -> None:
        self._stop(code)
        self._terminal.trouble(event, reason, hint, code)

    def _stop(self, code: int) -> None:
        """Close what is open, so that the log gets its byte counts."""
        self._exit_code = code
        for channel in list(self._relay.channels.values()):
            self._relay.remove(channel)
            self._report_closed(channel)

    def _lose_broker(self) -> None:
        """The broker died: what is open runs on; what could be opened no longer can."""
        self._poller.unregister(self._link.socket)
        self._link.lose()
        if not self._id:
            raise SpicetunnelError("the server's broker went away", "try again")

    def _look_after_link(self) -> None:
        if self._exit_code is not None:
            return
        if self._link.is_known:
            self._report_usage()
        elif self._link.away() > self._grace:
            reason = f"the server's broker has been away for {self._grace} s"
            self._end("end", os.EX_SOFTWARE, reason, "connect again")
        elif not self._link.is_connected and self._link.find_again():
            self._poller.register(self._link.socket, select.EPOLLIN)
            self._hand_back()

    def _hand_back(self) -> None:
        """Give the new broker what the old one had of this session: the VM's ends."""
        channels = dict(sorted(self._relay.channels.items()))
        unsaid, self._unsaid = self._unsaid, []
        request: Message = {
            **self._asker,
            "op": "resume",
            "session": self._id,
            "channels": _counts(list(channels.values())),
            "closed": unsaid,
        }
        self._link.tell(request, tuple(each.vm.fileno() for each in channels.values()))

    def _report_closed(self, channel: Channel) -> None:
        self._reported.pop(str(channel.number), None)
        report: Message = {
            "op": "closed",
            "channel": channel.number,
            "up": channel.up.moved,
            "down": channel.down.moved,
            "by": channel.ended_by or "relay",
        }
        if not self._link.tell(report):
            self._unsaid.append(report)

    def _report_usage(self) -> None:
        if time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + REPORT_INTERVAL
        usage = _counts(list(self._relay.channels.values()))
        if usage != self._reported:
            self._reported = usage
            self._link.tell({"op": "usage", "channels": usage})


def _counts(channels: list[Channel]) -> dict[str, list[int]]:
    """By number: bytes from viewer to VM, and from VM to viewer."""
    return {str(each.number): [each.up.moved, each.down.moved] for each in channels}
