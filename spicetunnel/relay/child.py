"""What a forked child does first: read the broker's request, then become a session, or kill one."""

import mmap
import os
import select
import signal
import socket

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.files import listen_at
from spicetunnel.common.names import is_session_id
from spicetunnel.common.protocol import VERSION, Message, decode, encode, number, text
from spicetunnel.relay.isolation import Sandbox
from spicetunnel.relay.session import Session, StoppedError

FIRST_WORD = 10.0  # seconds the broker may take to say what it wants


def run(
    broker: socket.socket, broker_uid: int, sessions: str, sandbox: Sandbox, stopping: mmap.mmap
) -> None:
    """Do what the broker wants of this process. Raises SpicetunnelError or OSError.

    `stopping` holds 1 from when the relay's parent is stopped: no session begins any more.
    """
    broker.settimeout(FIRST_WORD)
    packet, fds = fdpass.receive(broker, max_fds=1)
    if not packet:
        return
    request = decode(packet)
    if number(request, "v") != VERSION:
        raise ProtocolError("broker and relay are of different versions")
    operation = text(request, "op")
    if (operation == "kill") != (len(fds) == 1):
        raise ProtocolError(f"'{operation}' came with {len(fds)} descriptors")
    if operation == "begin":
        listener = _listen(sessions, request)
        if stopping[0]:  # looked at when we listen: either we see this, or the parent sees us
            return
        session = _begin(broker, broker_uid, listener, sandbox, request)
        session.greet(broker)
        session.serve()
    elif operation == "kill":
        _kill(broker, *fds)
    else:
        raise ProtocolError("an operation this relay does not know")


def _begin(
    broker: socket.socket,
    broker_uid: int,
    listener: socket.socket,
    sandbox: Sandbox,
    request: Message,
) -> Session:
    """Make this the process of a new session, sandboxed from now on."""
    session_id, grace = text(request, "session"), number(request, "grace")
    _name_process(f"relay:{session_id}")
    poller = select.epoll()
    signal.signal(signal.SIGTERM, _stop)
    sandbox.isolate((broker.fileno(), listener.fileno(), poller.fileno()))
    return Session(session_id, listener, broker_uid, poller, grace)


def _name_process(name: str) -> None:
    """Set the name that ps and top show, at most 15 characters."""
    try:
        comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        os.write(comm, name.encode())
    except OSError:
        return  # the name is only a convenience
    os.close(comm)


def _stop(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StoppedError


def _listen(sessions: str, request: Message) -> socket.socket:
    """The socket where the next broker finds this session. Raises ProtocolError or OSError."""
    session_id = text(request, "session")
    if not is_session_id(session_id):
        raise ProtocolError("'session' is not a session's id")
    path = os.path.join(sessions, session_id)  # no live session has this id
    return listen_at(path, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK, 16)


def _kill(broker: socket.socket, pidfd: int) -> None:
    """Kill a session's process that does not exit when told to. It runs as the same user as we do.

    The broker has looked which it is. We could not: in /proc we may see nobody, see isolation.py.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    fdpass.send(broker, encode({"event": "killed"}))
