"""One ssh to the server, from its start to why it ended."""

import os
import selectors
import shlex
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from spice_connect.errors import (
    ClientError,
    LostError,
    ProtocolError,
    ServerError,
    UnavailableError,
)
from spice_connect.tunnel import failures, talk
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.nearend import NearEnd
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Terminal

CHUNK = 1 << 16
NO_GATE = "is spicetunnel set up there, and are you in its group? its admin knows"


@dataclass(frozen=True)
class Failed:
    """The server refused, ended the session, or answered what we do not understand."""

    error: ClientError


@dataclass(frozen=True)
class Closed:
    """ssh has ended, and all it said has been handed on. `loss`: why, as far as we know."""

    loss: ClientError


Event = talk.Ready | talk.Waiting | talk.Notice | talk.Vms | Failed | Closed


class Link:
    """A source of events; the last one is Failed or Closed."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        argv: Sequence[str],
        host: str,
        terminal: Terminal,
        log: SshLog,
        near: NearEnd = NearEnd(),  # noqa: B008 - it cannot change
    ) -> None:
        """`log` and `near`: those that `argv` names."""
        terminal.detail(shlex.join(argv))  # to be read; what runs is the list
        self._janitor = janitor
        self._host = host
        self._terminal = terminal
        self._log, self._near = log, near
        self._process = self._start(argv)
        self._lines = talk.Lines()
        self._answered = False
        os.set_blocking(self._stdout(), False)
        # Something may hold ssh's stdout open beyond ssh's death.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector = selectors.EpollSelector()
        for fd in self._stdout(), self._pidfd, self._log.fileno():
            self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    def events(self) -> list[Event]:
        ended = self._process.poll() is not None  # asked first: then all it said is there
        chunk = self._read()
        self._log.listen()
        events = list(self._hear(self._lines.feed(chunk or b"")))
        if events and isinstance(events[-1], Failed):
            return events
        over = chunk == b"" or (ended and chunk is None)
        return [*events, Closed(self._loss())] if over else events

    def near_end(self) -> NearEnd:
        """Where the viewer connects, once the server is ready."""
        return self._near.require()

    def close(self) -> None:
        """End ssh, if it still lives, and hear no more of it."""
        self._selector.close()
        os.close(self._pidfd)
        self._log.close()
        self._janitor.end(self._process)

    def status(self) -> int | None:
        """What ssh ended with; None if it closed its stdout and yet does not end."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def _loss(self) -> ClientError:
        """Why ssh ended, where the server did not say. LostError: it may come back."""
        status, host = self.status(), self._host
        if status is not None and status < 0:  # somebody's deed on this machine, not the network's
            return UnavailableError(f"ssh was ended by {signal.Signals(-status).name}")
        if self._answered:
            return LostError(f"the connection to {host} was lost")
        if status == 255:
            return failures.explain(host, self._log.text())
        # The shell's 127 for want of an `open`, or the status of another `open` of the host's own
        # (Debian has one): either way the gate, which never ends without a word, was not there.
        reason = f"no spicetunnel gate answered on {host} (exit status {status})"
        return ProtocolError(reason, NO_GATE)

    def silence(self) -> LostError:
        """Why we no longer wait for the server's first word."""
        return LostError(f"{self._host} does not answer")

    def forwarding_refused(self) -> UnavailableError | None:
        """Why the tunnel led nowhere, if ssh has said so. It may concern another forwarding, of
        the person's own: ask only when a viewer has failed.
        """
        self._log.listen()
        return failures.forwarding_refused(self._host, self._log.text())

    def lacked_prompt(self) -> bool:
        """Whether ssh could not log in, and might have if it had asked the person."""
        return not self._answered and failures.lacked_prompt(self._log.text())

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        # ssh's stderr is the terminal: its prompts are the best there are.
        return self._janitor.popen(argv, stdout=subprocess.PIPE)

    def _stdout(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - said to the type checker
        return self._process.stdout.fileno()

    def _read(self) -> bytes | None:
        """None: there is nothing now. Empty: it is closed."""
        try:
            return os.read(self._stdout(), CHUNK)
        except BlockingIOError:
            return None

    def _hear(self, lines: Iterable[bytes]) -> Iterator[Event]:
        for line in lines:
            try:
                message = talk.parse(line)
            except ProtocolError as error:
                yield Failed(error)
                return
            self._answered |= not isinstance(message, talk.Noise)
            match message:
                case talk.Noise(text):
                    self._terminal.detail(f"server says: {text}")
                case talk.Final(reason, hint, code):
                    yield Failed(ServerError(reason, hint, code))
                    return
                case talk.Ready() | talk.Waiting() | talk.Notice() | talk.Vms():
                    yield message
