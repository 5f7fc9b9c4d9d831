"""Descriptors that travel with a packet."""

import array
import fcntl
import os
import socket
from collections.abc import Iterator

import pytest

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import MAX_PACKET

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_arrive_close_on_exec(pair: Pair) -> None:
    reader, writer = os.pipe()
    fdpass.send(pair[0], b"packet", (reader, writer))
    packet, fds = fdpass.receive(pair[1], max_fds=2)
    assert packet == b"packet"
    assert [fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds] == [1, 1]
    os.write(fds[1], b"through")
    assert os.read(reader, 10) == b"through"
    fdpass.close_all([reader, writer, *fds])


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_more_descriptors_than_expected_are_refused_and_closed(pair: Pair, allowed: int) -> None:
    before = open_descriptors()
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    fdpass.send(pair[0], b"packet", tuple(fds))
    with pytest.raises(ProtocolError):
        fdpass.receive(pair[1], max_fds=allowed)
    fdpass.close_all(fds)
    assert open_descriptors() == before


def test_credentials_do_not_count_as_descriptors(pair: Pair) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    fdpass.send(pair[0], b"packet")
    with pytest.raises(ProtocolError):
        fdpass.receive(pair[1])  # no room was made for them: cut short, so dropped


def test_a_packet_over_the_limit_is_refused(pair: Pair) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PACKET)
    pair[0].send(b"x" * (MAX_PACKET + 1))
    with pytest.raises(ProtocolError):
        fdpass.receive(pair[1])


def test_the_end_is_an_empty_packet(pair: Pair) -> None:
    pair[0].close()
    assert fdpass.receive(pair[1], max_fds=2) == (b"", [])


def test_two_control_messages_in_one_packet(pair: Pair) -> None:
    """The kernel merges them into one; still the exact count is kept."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    each = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd])) for fd in fds]
    pair[0].sendmsg([b"packet"], each)
    _, received = fdpass.receive(pair[1], max_fds=2)
    assert len(received) == 2
    fdpass.close_all([*fds, *received])


def test_last_words_of_a_peer_that_left_with_something_unread(pair: Pair) -> None:
    """The kernel reports the reset ahead of the queued packets (seen: lost byte counts)."""
    pair[1].send(b"never read")
    pair[0].send(b"last words")
    pair[0].close()
    assert fdpass.receive(pair[1]) == (b"last words", [])
    assert fdpass.receive(pair[1]) == (b"", [])
