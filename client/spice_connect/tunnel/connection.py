"""The connection to the server: one ssh process, or on the KVM host itself the gate (local.py)."""

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from spice_connect.errors import (
    ClientError,
    LostError,
    ProtocolError,
    ServerError,
    UnavailableError,
)
from spice_connect.flood import Bounds
from spice_connect.tunnel import afterlogin, causes, protocol
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.tunnel.stderr import Stderr
from spice_connect.ui.terminal import Terminal

CHUNK = 1 << 16

#: Seconds from the login to the first word of the gate. It needs some 50 ms, and a few seconds
#: where a home directory is mounted first.
FIRST_WORD = 30.0
#: Seconds from the start to the first word, if ssh does not say when it has logged in. The user may
#: have to answer questions meanwhile; sshd gives them two minutes (LoginGraceTime).
FIRST_WORD_WITH_LOGIN = 300.0


class LoggedIn(NamedTuple):
    """The server has let the user in. The gate's first word is due then (in time.monotonic)."""

    due: float


class Refused(NamedTuple):
    """The server did not forward a channel of ours. It may come again for each channel."""

    error: UnavailableError


class Failed(NamedTuple):
    """The server refused, ended the session, or sent something malformed."""

    error: ClientError


class Closed(NamedTuple):
    """ssh has ended, after all its other events. `loss`: why, as far as we know."""

    loss: ClientError


Said = protocol.Ready | protocol.Attached | protocol.Waiting | protocol.Notice | protocol.Vms
Event = Said | LoggedIn | Refused | Failed | Closed


class Connection:
    """A source of events (see loop.py). The last one is Failed or Closed.

    `first_word_due`: when the first word is due, in time.monotonic; None if it has come, or if the
    user has not been let in yet.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        argv: Sequence[str],
        host: str,
        terminal: Terminal,
        log: SshLog,
        local_end: LocalEnd = LocalEnd(),  # noqa: B008 - it cannot change
        *,
        show: Callable[[bytes], None] | None = None,
        bounds: Bounds | None = None,
        first_word: float | None = None,
        takes_lines: bool = False,
    ) -> None:
        """`log` and `local_end` are those that `argv` names. `show` gets ssh's stderr before the
        login; by default, it is printed. `bounds`: those of the session. `first_word`: the seconds
        until the first word is due, if ssh does not say in its log when it has logged in.
        `takes_lines`: for a menu, see `say`.

        Raises ClientError.
        """
        self._stdin = subprocess.PIPE if takes_lines else subprocess.DEVNULL
        terminal.detail(shlex.join(argv))  # for reading only: no shell runs it
        self._janitor = janitor
        self.host = host
        self._terminal = terminal
        self._log, self._local_end = log, local_end
        self._stderr = Stderr(show or terminal.pass_through)
        self._process = self._start(argv)
        self._stderr.started()
        self._lines = protocol.Lines()
        self._answered = self._told_login = False
        self._refusals = 0  # of those that were told
        self._foreign = ""  # the last line that another program on the server has said
        self._bounds = bounds or Bounds()
        self.first_word_due = None if first_word is None else time.monotonic() + first_word
        os.set_blocking(self._stdout(), False)
        # Another process may keep ssh's stdout open after ssh has ended.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector = selectors.EpollSelector()
        for fd in self._stdout(), self._pidfd, self._log.fileno(), self._stderr.fileno():
            self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    def events(self) -> list[Event]:
        ended = self._process.poll() is not None  # before reading, so that nothing is missed
        chunk = self._read()
        events = [*self._hear_ssh(), *self._hear(self._lines.feed(chunk or b""))]
        if events and isinstance(events[-1], Failed):
            return events
        over = chunk == b"" or (ended and chunk is None)
        return [*events, Closed(self._loss())] if over else events

    def local_end(self) -> LocalEnd:
        """Where the viewer connects. To be called after `ready`; raises UnavailableError."""
        return self._local_end.require()

    def require_tunnel(self, ready: protocol.Ready) -> None:
        """Raises ConfigError if we forward to another socket than the server's."""
        ours = self._log.steps.far
        if ready.tunnel and ours and ready.tunnel != ours:
            raise afterlogin.other_tunnel(self.host, ready.tunnel, ours)

    def close(self) -> None:
        """End ssh, if it still runs."""
        self._selector.close()
        os.close(self._pidfd)
        self._log.close()
        self._janitor.end(self._process)
        self._stderr.close()

    def say(self, words: Sequence[str]) -> None:
        """Send a line to the gate's menu. If ssh is gone, the next event is its end."""
        self.first_word_due = time.monotonic() + FIRST_WORD
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), " ".join(words).encode() + b"\n")

    def status(self) -> int | None:
        """The exit status of ssh; None if it has closed its stdout but does not end."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def _loss(self) -> ClientError:
        """Why ssh ended, if the server did not say. A LostError if another try may help."""
        status, host = self.status(), self.host
        self._hear_last_words()
        if status is not None and status < 0:  # it was killed on this machine
            return UnavailableError(f"ssh was ended by {signal.Signals(-status).name}")
        if self._answered:
            return LostError(f"the connection to {host} was lost")
        if status == 255:
            return causes.explain(self._attempt())
        return afterlogin.no_gate(host, status, self._foreign)

    def _hear_last_words(self) -> None:
        list(self._hear_ssh())
        self._note_foreign(self._stderr.rest())
        self._note_foreign(self._lines.rest().decode(errors="replace"))

    def _attempt(self) -> causes.Attempt:
        steps = self._log.steps
        said, heard = self._log.text(), self._stderr.text()
        return causes.Attempt(self.host, said, heard, steps.way, steps.is_logged_in)

    def silence(self) -> LostError:
        """The failure if the server sends no first answer in time."""
        if self.first_word_due is not None and self._log.steps.is_logged_in:
            return afterlogin.mute(self.host, FIRST_WORD)
        return LostError(f"{self.host} does not answer")

    def forwarding_refused(self) -> UnavailableError | None:
        """The failure if ssh has said that the server refused a forwarding, else None.

        If ssh does not tell forwardings apart, it may be another one, from the user's
        configuration: call this only after a viewer has failed.
        """
        self._log.listen()
        steps = self._log.steps
        if steps.refusals or steps.may_be_refused:
            return afterlogin.forwarding_refused(self.host, steps.far)
        return None

    def lacked_prompt(self) -> bool:
        """Whether ssh could not log in, but might if it could ask the user."""
        return not self._answered and causes.lacked_prompt(self._attempt())

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        return self._janitor.popen(
            argv, stdin=self._stdin, stdout=subprocess.PIPE, stderr=self._stderr.writer
        )

    def _stdout(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        return self._process.stdout.fileno()

    def _read(self) -> bytes | None:
        """None if there is nothing to read now, empty if stdout is closed."""
        try:
            return os.read(self._stdout(), CHUNK)
        except BlockingIOError:
            return None

    def _hear_ssh(self) -> Iterator[Event]:
        """Read ssh's log, then its stderr: what the log has not told yet is later."""
        self._log.listen()
        steps = self._log.steps
        if steps.is_logged_in and not self._told_login:
            self._told_login = True
            if not self._answered:
                self.first_word_due = time.monotonic() + FIRST_WORD
                yield LoggedIn(self.first_word_due)
        held = self._stderr.listen(hold=steps.is_logged_in)
        if held is None and self._stderr.fileno() in self._selector.get_map():
            self._selector.unregister(self._stderr.fileno())
        for line in held or ():
            self._note_foreign(line)
        if steps.refusals > self._refusals:
            self._refusals = steps.refusals
            yield Refused(afterlogin.forwarding_refused(self.host, steps.far))

    def _note_foreign(self, line: str) -> None:
        if line.strip():
            self._foreign = line.strip()
            self._terminal.detail(f"server says: {line}")

    def _hear(self, lines: Iterable[bytes]) -> Iterator[Event]:
        for line in lines:
            try:
                message = protocol.parse(line)
                if message and not isinstance(message, protocol.Noise):
                    self._bounds.take_message(self.host)
            except ProtocolError as error:
                yield Failed(error)
                return
            if isinstance(message, protocol.Noise):
                self._note_foreign(message.text)
                continue
            self._answered, self.first_word_due = True, None
            match message:
                case protocol.Final(reason, hint, code):
                    yield Failed(ServerError(reason, hint, code))
                    return
                case None:
                    pass  # an event of a newer server
                case _:
                    yield message
