"""Plays a session in the parent, before any fork, so that its children share more memory with it.

CPython 3.11 specialises code in place after some calls, and makes many a table at its first use. A
child that did so by itself would get pages of its own for it: 0.4 MB for each session (measured).
"""

import select
import socket

from spicetunnel.common import fdpass
from spicetunnel.common.protocol import Message, encode
from spicetunnel.relay.session import Session

_ROUNDS = 20  # a function is specialised after eight calls


def rehearse() -> None:
    """Open, use and close channels of a session that nobody else sees."""
    broker, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener, nobody = socket.socketpair()
    poller = select.epoll()
    session = Session("00000000", listener, 0, poller, 60)
    session.greet(its_end)
    for number in range(_ROUNDS):
        _play_channel(session, broker, number)
    broker.close()
    session.turn(0)
    for used in (listener, nobody, poller):
        used.close()


def _play_channel(session: Session, broker: socket.socket, number: int) -> None:
    viewer, near_viewer = socket.socketpair()
    vm, near_vm = socket.socketpair()
    message: Message = {"op": "channel", "channel": number, "hold": False}
    fdpass.send(broker, encode(message), (near_viewer.fileno(), near_vm.fileno()))
    near_viewer.close()
    near_vm.close()
    session.turn(0)
    for end in (viewer, vm):
        end.send(b"x")
        session.turn(0)
    for end in (viewer, vm):
        end.close()
        session.turn(0)
    while select.select([broker], [], [], 0)[0]:
        fdpass.receive(broker)
