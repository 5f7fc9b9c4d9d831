"""The clean-up: a process of its own, so that nothing is left behind, whatever ends us.

The janitor is forked before anything else is started. It makes the private directory, collects
a pidfd of each child we start, and waits. When the last copy of our end of its socket closes,
which the kernel does for a normal end and for `kill -9` alike, it ends the children and removes
the directory. A normal end is nothing but closing that socket and waiting for the janitor, so
the path that matters after a crash is the one that runs every day.

A child cannot be missed: it passes its own pidfd on before it becomes ssh or the viewer, and until
then it holds a copy of our end itself.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn, Self

from spice_connect import signals
from spice_connect.errors import ClientError, UnavailableError
from spice_connect.tunnel import localend

#: Which signal is sent, and the seconds to wait after it. The clean-up must be over in 2 s.
PATIENCE = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.5))
ALONE, GROUP = b"alone", b"group"
FAILED = "failed: "  # instead of the directory


class Child(NamedTuple):
    pidfd: int
    group: int = 0  # the process group that it leads; 0: none

    def alive(self) -> bool:
        return not _readable([self.pidfd], 0)

    def end(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.group and self.alive():  # while it lives, its number is not reused
                os.killpg(self.group, signum)
            else:
                signal.pidfd_send_signal(self.pidfd, signum)


class Janitor:
    """Our end. Start children with `popen`; leaving the `with` block cleans up."""

    def __init__(self, parent_directory: str) -> None:
        # Packets: one recv is one child, and an empty one is the end.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._started: list[subprocess.Popen[bytes]] = []
        self._pid = _fork(theirs, parent_directory)
        theirs.close()
        self.directory = self._socket.recv(4096).decode()
        if not self.directory.startswith("/"):
            self._socket.close()
            os.waitpid(self._pid, 0)
            why = self.directory.removeprefix(FAILED) or "the clean-up process died"
            raise UnavailableError(
                f"cannot make a directory in {parent_directory}: {why.lower()}",
                "is there room, and may you write there? XDG_RUNTIME_DIR names another place",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        with signals.held_back():
            self._socket.close()
            _, status = os.waitpid(self._pid, 0)
            if status != 0:  # it was killed: do its work here
                sweep(list(_living(self._started)), self.directory)
            for process in self._started:
                process.poll()
            _close_pipes(self._started)

    def fileno(self) -> int:
        """Readable only when the janitor has ended."""
        return self._socket.fileno()

    def events(self) -> NoReturn:
        """Raises ClientError: the janitor has ended."""
        raise ClientError("the clean-up process was killed, so the session ends")

    def popen(  # noqa: PLR0913 - as subprocess.Popen
        self,
        argv: Sequence[str],
        *,
        stdout: int,
        stderr: int | None = None,
        stdin: int = subprocess.DEVNULL,
        own_group: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a child that cannot outlive us. Its stdin is /dev/null by default.

        With `own_group` it leads a process group: Ctrl-C does not reach it, it cannot read from the
        terminal, and its own children are ended with it. Without `environment` it gets ours.
        Raises UnavailableError if it cannot be started, ClientError if the janitor is gone.
        """

        def prepare() -> None:
            word = GROUP + b"%d" % os.getpid() if own_group else ALONE
            socket.send_fds(self._socket, [word], [os.pidfd_open(os.getpid())])
            signals.restore(mask)

        try:
            # Before exec, the child would handle a Ctrl-C as we do.
            with signals.held_back() as mask:
                process = subprocess.Popen(
                    argv,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment,
                    process_group=0 if own_group else None,
                    preexec_fn=prepare,  # noqa: PLW1509 - we have no threads
                )
        except OSError as error:
            raise UnavailableError(f"cannot start {argv[0]}: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            raise ClientError(f"cannot register {argv[0]} with the clean-up process") from error
        self._started.append(process)
        return process

    def end(self, *processes: subprocess.Popen[bytes]) -> None:
        """End these children now, and forget them."""
        children = list(_living(processes))
        _end(children)
        for child in children:
            os.close(child.pidfd)
        _close_pipes(processes)
        self._started = [each for each in self._started if each.poll() is None]


def _close_pipes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        for stream in filter(None, (process.stdin, process.stdout)):
            stream.close()


def _living(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[Child]:
    for process in processes:
        if process.poll() is None:  # not reaped, so the pid is not reused
            leads = os.getpgid(process.pid) == process.pid
            yield Child(os.pidfd_open(process.pid), process.pid if leads else 0)


def _fork(control: socket.socket, parent_directory: str) -> int:
    # All signals stay blocked in the janitor: only SIGKILL ends it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        _main(control, parent_directory)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _main(control: socket.socket, parent_directory: str) -> NoReturn:
    status = os.EX_SOFTWARE
    try:
        _detach(control.fileno())
        _work(control, parent_directory)
        status = os.EX_OK
    finally:
        os._exit(status)  # never return into the code of the parent


def _detach(keep: int) -> None:
    """Keep nothing from the parent: terminal, directory, name, descriptors."""
    os.setsid()
    os.chdir("/")
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        name.write("spice-janitor")  # so that `killall spice-connect` spares it
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _work(control: socket.socket, parent_directory: str) -> None:
    try:
        directory = localend.make_directory(parent_directory)
    except OSError as error:
        control.send(f"{FAILED}{error.strerror or error}".encode())
        return
    children: list[Child] = []
    try:
        control.send(directory.encode())
        while received := _receive(control):
            children = [*_without_the_dead(children), received]
    finally:
        sweep(children, directory)


def _receive(control: socket.socket) -> Child | None:
    word, fds, _, _ = socket.recv_fds(control, 64, 1)
    if not word:
        return None
    return Child(fds[0], int(word.removeprefix(GROUP)) if word.startswith(GROUP) else 0)


def _without_the_dead(children: list[Child]) -> Iterator[Child]:
    """Close the pidfds of dead children: a session may reconnect many times."""
    for child in children:
        if child.alive():
            yield child
        else:
            os.close(child.pidfd)


def sweep(children: list[Child], directory: str) -> None:
    """End all children, then remove the directory."""
    _end(children)
    with contextlib.suppress(FileNotFoundError):
        localend.remove_directory(directory)


def _end(children: list[Child]) -> None:
    """SIGTERM, then SIGKILL."""
    for signum, seconds in PATIENCE:
        for child in children:
            child.end(signum)
        children = _wait(children, time.monotonic() + seconds)


def _wait(children: list[Child], deadline: float) -> list[Child]:
    """Wait until all have ended or the time is up; return those that still live."""
    while (living := [child for child in children if child.alive()]) and (
        left := deadline - time.monotonic()
    ) > 0:
        _readable([child.pidfd for child in living], left)
    return living


def _readable(fds: list[int], seconds: float) -> bool:
    """Whether one of them is readable. A pidfd is once its process has ended, even as a zombie."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
