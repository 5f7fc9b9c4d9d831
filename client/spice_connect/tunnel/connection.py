"""The connection to the server: one ssh process, or on the KVM host itself the gate.

There the gate runs as a child of ours. The broker decides as over ssh, by what the kernel says of
the gate. It binds the session to the gate's parent, which is this process, and takes channels from
the processes below it: our viewer.
"""

import os
import selectors
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

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

#: Not passed on to the gate: in our environment they are about another session (the user may have
#: logged in to this host by ssh), or were set by the user.
OF_SSHD = ("SSH_CONNECTION", "SSH_ORIGINAL_COMMAND")


class Failed(NamedTuple):
    """The server refused, ended the session, or sent something malformed."""

    error: ClientError


class Closed(NamedTuple):
    """ssh has ended, after all its other events. `loss`: why, as far as we know."""

    loss: ClientError


Event = protocol.Ready | protocol.Waiting | protocol.Notice | protocol.Vms | Failed | Closed


class Connection:
    """A source of events (see loop.py). The last one is Failed or Closed."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        argv: Sequence[str],
        host: str,
        terminal: Terminal,
        log: SshLog,
        local_end: LocalEnd = LocalEnd(),  # noqa: B008 - it cannot change
    ) -> None:
        """`log` and `local_end` are those that `argv` names. Raises ClientError."""
        terminal.detail(shlex.join(argv))  # for reading only: no shell runs it
        self._janitor = janitor
        self._host = host
        self._terminal = terminal
        self._log, self._local_end = log, local_end
        self._process = self._start(argv)
        self._lines = protocol.Lines()
        self._answered = False
        os.set_blocking(self._stdout(), False)
        # Another process may keep ssh's stdout open after ssh has ended.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector = selectors.EpollSelector()
        for fd in self._stdout(), self._pidfd, self._log.fileno():
            self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    def events(self) -> list[Event]:
        ended = self._process.poll() is not None  # before reading, so that nothing is missed
        chunk = self._read()
        self._log.listen()
        events = list(self._hear(self._lines.feed(chunk or b"")))
        if events and isinstance(events[-1], Failed):
            return events
        over = chunk == b"" or (ended and chunk is None)
        return [*events, Closed(self._loss())] if over else events

    def local_end(self) -> LocalEnd:
        """Where the viewer connects. To be called after `ready`; raises UnavailableError."""
        return self._local_end.require()

    def close(self) -> None:
        """End ssh, if it still runs."""
        self._selector.close()
        os.close(self._pidfd)
        self._log.close()
        self._janitor.end(self._process)

    def status(self) -> int | None:
        """The exit status of ssh; None if it has closed its stdout but does not end."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def _loss(self) -> ClientError:
        """Why ssh ended, if the server did not say. A LostError if another try may help."""
        status, host = self.status(), self._host
        if status is not None and status < 0:  # it was killed on this machine
            return UnavailableError(f"ssh was ended by {signal.Signals(-status).name}")
        if self._answered:
            return LostError(f"the connection to {host} was lost")
        if status == 255:
            return sshlog.explain(host, self._log.text())
        # The gate never ends without a message, so it did not run: the shell found no `open` (127),
        # or another program of this name (Debian has one).
        reason = f"no spicetunnel gate answered on {host} (exit status {status})"
        return ProtocolError(reason, NO_GATE)

    def silence(self) -> LostError:
        """The failure if the server sends no first answer in time."""
        return LostError(f"{self._host} does not answer")

    def forwarding_refused(self) -> UnavailableError | None:
        """The failure if ssh has said that the server refused a forwarding, else None.

        It may be another forwarding, from the user's configuration: call this only after a viewer
        has failed.
        """
        self._log.listen()
        return sshlog.forwarding_refused(self._host, self._log.text())

    def lacked_prompt(self) -> bool:
        """Whether ssh could not log in, but might if it could ask the user."""
        return not self._answered and sshlog.lacked_prompt(self._log.text())

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        # The terminal stays ssh's stderr, for its prompts.
        return self._janitor.popen(argv, stdout=subprocess.PIPE)

    def _stdout(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        return self._process.stdout.fileno()

    def _read(self) -> bytes | None:
        """None if there is nothing to read now, empty if stdout is closed."""
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
    """The gate, instead of ssh."""

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        words: Sequence[str],
        terminal: Terminal,
        log: SshLog,
    ) -> None:
        """`log` stays empty. Raises UnavailableError if there is no gate."""
        check_gate(config.gate)
        terminal.detail(f"asking this machine's gate: {shlex.join(words)}")
        self._gate = config.gate
        self._request = " ".join(words)  # they were checked: no spaces
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
        # In its own process group, so that Ctrl-C and a closed terminal reach only us.
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
    """Whether a broker runs on this machine."""
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
    """Start to open a VM. `retry`: after an outage. Raises ClientError."""
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
    """Start to ask for the list of VMs. Raises ClientError.

    Without a `progress`, several hosts are asked at once: then ssh must not prompt, and its
    messages are shown only if the user wants details.
    """
    show = terminal.pass_on if progress or terminal.verbosity else _drop
    log = SshLog(janitor.directory, show, progress.hear if progress else _is_no_progress)
    if config.is_local:
        return LocalConnection(janitor, config, ssh.LIST, terminal, log)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.list_command(config, talk=talk, may_prompt=progress is not None)
    return Connection(janitor, argv, config.host, terminal, log)


def _is_no_progress(_message: str) -> bool:
    return False


def _drop(_line: bytes) -> None:
    """Ssh's messages are not shown for several hosts: one line of ours for each is enough."""
