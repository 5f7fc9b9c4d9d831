"""One session: from the person's `open` until the person, the server or the network ends it.

The gate asks, waits and says; the session's bytes are the relay's, and no descriptor ever comes
here. The session outlives the broker: the gate looks for the next one, and says which session it
waits for.
"""

import os
import select
import sys

from spicetunnel.common import fdpass
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import Message, decode, flag, number, text
from spicetunnel.gate.link import BrokerLink
from spicetunnel.gate.terminal import Terminal

LOOK_INTERVAL = 0.5  # seconds between two tries to find a new broker
GRACE = 60  # seconds without a broker, where `ready` does not say how many


class Session:
    """Says what the broker tells it to say.

    `asker` is what each request begins with: who asks, and from where.
    """

    def __init__(self, link: BrokerLink, asker: Message, terminal: Terminal) -> None:
        self._link = link
        self._asker = asker
        self._terminal = terminal
        self._poller = select.poll()
        self._id = ""  # until the broker has said `ready`
        self._grace = GRACE
        self._exit_code: int | None = None

    def run(self) -> int:
        """Serve until the end; the exit code."""
        self._poller.register(self._link.socket, select.POLLIN)
        # sshd closes its end of our stdout when the connection is gone: poll then reports an
        # error on it, which it does unasked. stdin tells nothing: `ssh -n` ends it at once.
        self._poller.register(sys.stdout.fileno(), 0)
        while self._exit_code is None:
            pause = None if self._link.is_known else int(LOOK_INTERVAL * 1000)
            for fd, _events in self._poller.poll(pause):
                self._dispatch(fd)
            self._look_after_link()
        return self._exit_code

    def _dispatch(self, fd: int) -> None:
        if self._exit_code is not None:
            return
        if fd == sys.stdout.fileno():
            self._exit_code = os.EX_OK  # the client left
        elif self._link.is_connected:
            self._hear_broker()

    def _hear_broker(self) -> None:
        try:
            packet, _ = fdpass.receive(self._link.socket)
        except BlockingIOError:
            return
        if packet:
            self._obey(decode(packet))
        else:
            self._lose_broker()

    def _obey(self, message: Message) -> None:
        event = text(message, "event")
        if event == "ready":
            self._begin(message)
        elif event == "resumed":
            self._link.confirm()
        elif event in {"notice", "waiting"}:
            self._terminal.trouble(event, text(message, "reason"), text(message, "hint", ""))
            if flag(message, "ack"):
                self._link.tell({"op": "said"})
        elif event in {"end", "refused"}:
            code = number(message, "code")
            self._end(event, code, text(message, "reason"), text(message, "hint", ""))
        # Others come from a newer broker, and are for a newer gate.

    def _begin(self, ready: Message) -> None:
        """The session is open: the first time, or again after its VM's restart."""
        self._id = text(ready, "session")
        self._grace = number(ready, "grace") if "grace" in ready else GRACE
        self._terminal.ready(ready)

    def _end(self, event: str, code: int, reason: str, hint: str) -> None:
        self._exit_code = code
        self._terminal.trouble(event, reason, hint, code)

    def _lose_broker(self) -> None:
        """The broker died: what is open runs on; what could be opened no longer can."""
        self._poller.unregister(self._link.socket)
        self._link.lose()
        if not self._id:
            raise SpicetunnelError("the server's broker went away", "try again")

    def _look_after_link(self) -> None:
        if self._exit_code is not None or self._link.is_known:
            return
        if self._link.away() > self._grace:
            reason = f"the server's broker has been away for {self._grace} s"
            self._end("end", os.EX_SOFTWARE, reason, "connect again")
        elif not self._link.is_connected and self._link.find_again():
            self._poller.register(self._link.socket, select.POLLIN)
            self._link.tell({**self._asker, "op": "resume", "session": self._id})
