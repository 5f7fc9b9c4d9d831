"""One session: from the person's `open` until the person, the server or the network ends it.

The gate asks, waits and says; the session's bytes are the relay's, and no descriptor ever comes
here. The session outlives the broker: the gate looks for the next one, and says which session it
waits for. While it has nothing to do, it is a smaller program in the same process (idle.py).
"""

import os
import select
import signal
import socket
import sys
import time

from spicetunnel.common import fdpass
from spicetunnel.common.client import NoBrokerError, connect
from spicetunnel.common.protocol import Message, decode, encode, flag, number, text
from spicetunnel.gate import idle
from spicetunnel.gate.terminal import Terminal

LOOK_INTERVAL = 0.5  # seconds between two tries to find a new broker
IDLE_AFTER = 1.0  # seconds with nothing to do, and the gate becomes smaller
GRACE = 60  # seconds without a broker, where `ready` does not say how many


class Session:
    """Says what the broker tells it to say.

    `asker` is what each request begins with: who asks, and from where.
    """

    def __init__(
        self, broker: socket.socket, run_dir: str, asker: Message, terminal: Terminal
    ) -> None:
        self._broker: socket.socket | None = None
        self._run_dir = run_dir
        self._asker = asker
        self._terminal = terminal
        self._poller = select.poll()
        self._id = ""  # until the broker has said `ready`
        self._grace = GRACE
        # When the last broker that knew the session was lost, on the monotonic clock. A connection
        # alone says nothing: the service manager listens for a broker that may never come.
        self._lost_at: float | None = None
        self._exit_code: int | None = None
        self._idle_after: float | None = IDLE_AFTER
        self._take(broker)

    def run(self) -> int:
        """Serve until the end; returns the exit code. Raises NoBrokerError before `ready`."""
        # sshd closes its end of our stdout when the connection is gone: poll then reports an
        # error on it, which it does unasked. stdin tells nothing: `ssh -n` ends it at once.
        stdout = sys.stdout.fileno()
        self._poller.register(stdout, 0)
        while self._exit_code is None:
            pause = self._idle_after if self._lost_at is None else LOOK_INTERVAL
            ready = {fd for fd, _ in self._poller.poll(pause and pause * 1000)}
            if stdout in ready:
                return os.EX_OK  # the client left
            if ready:
                self._hear_broker()
            elif self._broker is not None and self._lost_at is None:
                self._become_idle(self._broker)
            if self._lost_at is not None:
                self._look_for_broker(self._lost_at)
        return self._exit_code

    def resume(self, session_id: str, grace: int) -> int:
        """As `run`, for a session that idle.py kept; its id is empty before `ready`."""
        self._id, self._grace = session_id, grace
        return self.run()

    def _become_idle(self, broker: socket.socket) -> None:
        """Run idle.py in this process, which comes back by `resume`."""
        broker.set_inheritable(True)
        # While Python starts, an interrupt would print where. Ignored, it stays so over execve.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        state = (str(broker.fileno()), self._id, str(self._grace))
        argv = (sys.executable, "-I", "-S", idle.__file__, *state, *sys.argv[1:])
        try:
            os.execv(sys.executable, argv)
        except OSError:
            self._idle_after = None  # Python was replaced by an update: stay as we are
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            broker.set_inheritable(False)

    def _take(self, broker: socket.socket) -> None:
        broker.setblocking(False)
        broker.set_inheritable(False)
        self._broker = broker
        self._poller.register(broker, select.POLLIN)

    def _hear_broker(self) -> None:
        if self._broker is None:
            return
        try:
            packet, _ = fdpass.receive(self._broker)
        except BlockingIOError:
            return
        if packet:
            self._obey(decode(packet))
        else:
            self._lose(self._broker)

    def _obey(self, message: Message) -> None:
        event = text(message, "event")
        if event == "ready":
            self._begin(message)
        elif event == "resumed":
            self._lost_at = None
        elif event == "attached":
            self._terminal.attached()
        elif event in {"notice", "waiting"}:
            self._terminal.tell(message)
            if flag(message, "ack"):
                self._tell({"op": "said"})
        elif event in {"end", "refused"}:
            self._exit_code = number(message, "code")
            self._terminal.tell(message)
        # Others come from a newer broker, and are for a newer gate.

    def _begin(self, ready: Message) -> None:
        """The session is open: the first time, or again after its VM's restart."""
        self._id = text(ready, "session")
        self._grace = number(ready, "grace") if "grace" in ready else GRACE
        self._terminal.ready(ready)

    def _lose(self, broker: socket.socket) -> None:
        """The broker died: a session goes on; without one, raises NoBrokerError."""
        self._poller.unregister(broker)
        broker.close()
        self._broker = None
        self._lost_at = self._lost_at or time.monotonic()
        if not self._id:
            raise NoBrokerError("the server's broker went away", "try again")

    def _look_for_broker(self, lost_at: float) -> None:
        if time.monotonic() - lost_at > self._grace:
            reason = f"the server's broker has been away for {self._grace} s"
            self._exit_code = os.EX_SOFTWARE
            self._terminal.trouble("end", reason, "connect again", os.EX_SOFTWARE)
        elif self._broker is None:
            try:
                self._take(connect(self._run_dir, timeout=0))
            except NoBrokerError:
                return
            self._tell({**self._asker, "op": "resume", "session": self._id})

    def _tell(self, message: Message) -> None:
        """Send to the broker. If it is going away, the message is lost, and EOF follows."""
        try:
            if self._broker:
                fdpass.send(self._broker, encode(message))
        except OSError:
            pass
