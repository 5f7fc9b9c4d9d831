"""The connection to the server: one ssh, or on the server itself its gate, until it ends."""

import os
import selectors
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from spice_connect.config import Config
from spice_connect.errors import (
    ClientError,
    LostError,
    ProtocolError,
    ServerError,
    UnavailableError,
)
from spice_connect.names import control_socket, tunnel_socket
from spice_connect.tunnel import protocol, ssh, sshlog
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.tunnel.ssh import Opening
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Progress, Terminal

CHUNK = 1 << 16
NO_GATE = "is spicetunnel set up there, and are you in its group? its admin knows"

#: What our own environment says of sshd is not about this session: a person may have come to this
#: host by ssh, or have written it themselves.
OF_SSHD = ("SSH_CONNECTION", "SSH_ORIGINAL_COMMAND")


@dataclass(frozen=True)
class Failed:
    """The server refused, ended the session, or answered what we do not understand."""

    error: ClientError


@dataclass(frozen=True)
class Closed:
    """ssh has ended, and all it said has been handed on. `loss`: why, as far as we know."""

    loss: ClientError


Event = protocol.Ready | protocol.Waiting | protocol.Notice | protocol.Vms | Failed | Closed


class Connection:
    """A source of events; the last one is Failed or Closed."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        argv: Sequence[str],
        host: str,
        terminal: Terminal,
        log: SshLog,
        local_end: LocalEnd = LocalEnd(),  # noqa: B008 - it cannot change
    ) -> None:
        """`log` and `local_end`: those that `argv` names."""
        terminal.detail(shlex.join(argv))  # to be read; what runs is the list
        self._janitor = janitor
        self._host = host
        self._terminal = terminal
        self._log, self._local_end = log, local_end
        self._process = self._start(argv)
        self._lines = protocol.Lines()
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

    def local_end(self) -> LocalEnd:
        """Where the viewer connects, once the server is ready."""
        return self._local_end.require()

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
            return sshlog.explain(host, self._log.text())
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
        return sshlog.forwarding_refused(self._host, self._log.text())

    def lacked_prompt(self) -> bool:
        """Whether ssh could not log in, and might have if it had asked the person."""
        return not self._answered and sshlog.lacked_prompt(self._log.text())

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
                message = protocol.parse(line)
            except ProtocolError as error:
                yield Failed(error)
                return
            self._answered |= not isinstance(message, protocol.Noise)
            match message:
                case protocol.Noise(text):
                    self._terminal.detail(f"server says: {text}")
                case protocol.Final(reason, hint, code):
                    yield Failed(ServerError(reason, hint, code))
                    return
                case protocol.Ready() | protocol.Waiting() | protocol.Notice() | protocol.Vms():
                    yield message


class LocalConnection(Connection):
    """The gate, in the place of one ssh."""

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        words: Sequence[str],
        terminal: Terminal,
        log: SshLog,
    ) -> None:
        """`log`: nobody writes into it here."""
        check_gate(config.gate)
        terminal.detail(f"asking this machine's gate: {shlex.join(words)}")
        self._gate = config.gate
        self._request = " ".join(words)  # each of them is checked, and has no space
        argv = [config.gate, "--run-dir", config.run_dir]
        local_end = LocalEnd(path=tunnel_socket(config.run_dir))
        super().__init__(janitor, argv, config.place, terminal, log, local_end)

    def _loss(self) -> ClientError:
        if self._answered:
            return LostError("the gate on this machine ended")
        return ProtocolError(
            f"{self._gate} does not answer like a spicetunnel gate (exit status {self.status()})"
        )

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k not in OF_SSHD}
        environment["SSH_ORIGINAL_COMMAND"] = self._request
        # A group of its own: Ctrl-C and a closed terminal are ours to answer, as with ssh's.
        return self._janitor.popen(
            argv, stdout=subprocess.PIPE, own_group=True, environment=environment
        )


def check_gate(program: str) -> None:
    if shutil.which(program) is None:
        raise UnavailableError(
            f"the gate {program} is not installed on this machine",
            'set gate = "/path/to/spicetunnel-gate" in the configuration, or a host to go there',
        )


def is_here(run_dir: str) -> bool:
    """Whether this machine has a broker."""
    try:
        return stat.S_ISSOCK(os.stat(control_socket(run_dir)).st_mode)
    except OSError:
        return False


def to_open(  # noqa: PLR0913 - the parts that meet here
    janitor: Janitor,
    config: Config,
    opening: Opening,
    terminal: Terminal,
    progress: Progress,
    *,
    retry: bool,
) -> Connection:
    log = SshLog(janitor.directory, terminal.pass_on, progress.hear)
    if config.is_local:
        return LocalConnection(janitor, config, opening.words(), terminal, log)
    by_port = config.viewer_port
    local_end = LocalEnd.open_port(terminal) if by_port else LocalEnd.private(janitor.directory)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.open_command(config, opening, near=str(local_end), talk=talk, retry=retry)
    return Connection(janitor, argv, config.host, terminal, log, local_end)


def to_list(
    janitor: Janitor, config: Config, terminal: Terminal, progress: Progress | None
) -> Connection:
    """Without a `progress`, one of many: ssh asks nothing, and its words are for the curious."""
    heard = progress or terminal.verbosity
    show = terminal.pass_on if heard else _unheard
    log = SshLog(janitor.directory, show, progress.hear if progress else _is_no_news)
    if config.is_local:
        return LocalConnection(janitor, config, ssh.LIST, terminal, log)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.list_command(config, talk=talk, may_prompt=progress is not None)
    return Connection(janitor, argv, config.host, terminal, log)


def _is_no_news(_message: str) -> bool:
    """Nor is it a line for anybody."""
    return False


def _unheard(_said: bytes) -> None:
    """Ssh's words: one sentence of ours a host is enough where there are several."""
