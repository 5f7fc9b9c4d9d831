"""spicetunnel-relay: the parent process. It gives each session a process of its own.

It only accepts and forks: what the broker says, it says to the child. So the parent never holds a
descriptor of a session, and its death ends none. Standard library only, and all of it imported
before the first fork: a child shares the parent's memory.
"""

import argparse
import gc
import json
import mmap
import os
import pwd
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

from spicetunnel import __version__
from spicetunnel.common.errors import SpicetunnelError, os_reason
from spicetunnel.common.files import hold_directory, listen_at
from spicetunnel.common.processes import peer_of
from spicetunnel.common.protocol import RELAY_DIR, RELAY_SOCKET, SESSIONS
from spicetunnel.common.systemd import inherited, notify_ready
from spicetunnel.relay import child
from spicetunnel.relay.isolation import Sandbox
from spicetunnel.relay.rehearsal import rehearse

LAST_WORD = 5.0  # seconds for the sessions to end themselves, when we are stopped
_BACKLOG = 256
_UNIT = "spicetunnel-relay.service"
_OUT_OF_DESCRIPTORS_PAUSE = 0.2  # seconds


class ToldError(Exception):
    """A signal came. `leave`: leave the sessions to the next parent."""

    def __init__(self, *, leave: bool) -> None:
        self.leave = leave


def main() -> None:
    options = _parse(sys.argv[1:])
    try:
        serve(options.dir, _uid_of(options.broker_user))
    except SpicetunnelError as error:
        print(f"spicetunnel-relay: {error.reason}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


def serve(directory: str, broker_uid: int) -> None:
    """Serve until a signal. Raises SpicetunnelError if the relay cannot start.

    SIGTERM and SIGINT end all sessions, those of a parent before us too; SIGHUP ends none.
    """
    lock = hold_directory(directory)
    sandbox = Sandbox()
    # The broker may connect: the directory's set-group-id bit gives all sockets to its group.
    os.umask(0o007)
    sessions = os.path.join(directory, SESSIONS)
    os.makedirs(sessions, mode=0o770, exist_ok=True)
    # Shared with the children: what has not begun when we are stopped must not begin any more.
    stopping = mmap.mmap(-1, 1)
    rehearse()
    gc.collect()
    gc.freeze()  # the collector does not touch these objects any more, so their memory stays shared
    listener = _listener(os.path.join(directory, RELAY_SOCKET))  # last: who finds it may ask
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _told)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    try:
        log("start", version=__version__, dir=directory)
        notify_ready(os.environ)
        while True:
            connection = _next_connection(listener)
            with connection:
                if _fork_for(connection, broker_uid):
                    os.close(lock)  # ours to hold, not theirs
                    listener.close()
                    _be_child(connection, broker_uid, sessions, sandbox, stopping)
    except ToldError as told:
        stopping[0] = not told.leave  # before we look for those that listen
        ended = 0 if told.leave else end_all(sessions)
        log("stop", sessions_ended=ended)
    finally:
        os.close(lock)


def _next_connection(listener: socket.socket) -> socket.socket:
    while True:
        try:
            return listener.accept()[0]
        except OSError as error:  # out of descriptors: it waits in the queue
            log("fault", reason=f"cannot accept: {os_reason(error)}")
            time.sleep(_OUT_OF_DESCRIPTORS_PAUSE)


def _fork_for(connection: socket.socket, broker_uid: int) -> bool:
    """Fork if the connection is the broker's. True in the child."""
    _, uid = peer_of(connection)
    if uid != broker_uid:
        log("refused", uid=uid, reason="not the broker")
        return False
    try:
        return os.fork() == 0
    except OSError as error:  # too many processes; the broker sees the connection end
        log("fault", reason=f"no process for a session: {os_reason(error)}")
        return False


def _be_child(
    connection: socket.socket,
    broker_uid: int,
    sessions: str,
    sandbox: Sandbox,
    stopping: mmap.mmap,
) -> None:
    """Never returns."""
    code = os.EX_SOFTWARE
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # meant for the parent, at a terminal
        child.run(connection, broker_uid, sessions, sandbox, stopping)
        code = os.EX_OK
    except BaseException as error:
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
        log("fault", reason=repr(error)[:300], place=place)
    finally:
        os._exit(code)


def end_all(sessions: str) -> int:
    """End each session's process; how many there were."""
    pids = {*_listening(sessions), *_of_our_unit()} - {os.getpid()}
    pidfds = [pidfd for pid in pids if (pidfd := _pidfd_of(pid)) is not None]
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    deadline = time.monotonic() + LAST_WORD
    for pidfd in pidfds:
        if not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return len(pidfds)


def _listening(sessions: str) -> Iterator[int]:
    """Those that listen in the directory: the kernel says who does."""
    for name in os.listdir(sessions):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(os.path.join(sessions, name))
                pid, _ = peer_of(probe)
            except OSError:
                continue  # it has ended; its socket is the broker's to remove
        yield pid


def _of_our_unit() -> list[int]:
    """Those in our service's cgroup (cgroups(7)), which none can leave; empty without systemd.

    So a session's process is found too that its viewer took over, and that has closed its socket.
    """
    try:
        with open("/proc/self/cgroup", encoding="ascii") as file:
            (unit,) = (line[3:].strip() for line in file if line.startswith("0::"))
        if os.path.basename(unit) != _UNIT:
            return []
        with open(f"/sys/fs/cgroup{unit}/cgroup.procs", encoding="ascii") as file:
            return [int(line) for line in file]
    except (OSError, ValueError):
        return []


def _pidfd_of(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # it has just ended


def _listener(path: str) -> socket.socket:
    for given in inherited(os.environ):
        given.setblocking(True)
        return given
    return listen_at(path, socket.SOCK_SEQPACKET, _BACKLOG)


def log(event: str, **fields: object) -> None:
    """One JSON object a line: ASCII, so that nothing foreign reaches a terminal."""
    print(json.dumps({"event": event, "pid": os.getpid(), **fields}), file=sys.stderr, flush=True)


def _told(number: int, _frame: object) -> None:
    raise ToldError(leave=number == signal.SIGHUP)


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SpicetunnelError(
            f"there is no user {name!a}", "name the broker's: --broker-user"
        ) from None


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spicetunnel-relay",
        description="The relay of spicetunnel: one process a session, which moves its bytes.",
    )
    parser.add_argument(
        "--dir", default=RELAY_DIR, help="where it listens, and its sessions; default: %(default)s"
    )
    parser.add_argument(
        "--broker-user",
        default="spicetunnel",
        metavar="USER",
        help="the one user that may talk to it; default: %(default)s",
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
