"""Identity and the SSH connection's anchor come from the kernel. Real processes, no fakes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from spicetunnel.broker import peers
from spicetunnel.broker.peers import Peer, anchor_of, lineage, peer_of
from spicetunnel.common.errors import NotPermittedError

CONNECT_AND_WAIT = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)
"""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        sock.settimeout(10)
        yield sock


def start(listener: socket.socket, *before: str) -> subprocess.Popen[bytes]:
    """Start a process that connects to `listener`; `before` is a command that runs it."""
    script = [sys.executable, "-c", CONNECT_AND_WAIT, listener.getsockname()]
    return subprocess.Popen([*before, *script])


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_peer_is_the_process_that_connected(listener: socket.socket) -> None:
    child = start(listener)
    connection, _ = listener.accept()
    with connection:
        assert peer_of(connection) == Peer(child.pid, os.getuid())
    end(child)


def test_peer_stays_who_connected_even_if_another_process_holds_the_socket(
    listener: socket.socket,
) -> None:
    """A process that was passed the descriptor, or inherited it, is not the peer."""
    child = os.fork()
    if child == 0:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(listener.getsockname())
        if os.fork() == 0:
            sock.recv(1)  # until our end is closed
        os._exit(0)
    connection, _ = listener.accept()
    with connection:
        assert peer_of(connection).pid == child
    os.waitpid(child, 0)


def test_anchor_is_the_gates_parent(listener: socket.socket) -> None:
    child = start(listener)
    connection, _ = listener.accept()
    with connection:
        anchor = anchor_of(peer_of(connection))
        assert anchor.pid == os.getpid()
        assert anchor.alive
        anchor.close()
    end(child)


def test_anchor_is_not_alive_after_its_process_ended(listener: socket.socket) -> None:
    shell = start(listener, "/bin/sh", "-c", '"$@" & echo $! >&2; wait', "sh")
    connection, _ = listener.accept()
    with connection:
        gate = peer_of(connection)
        anchor = anchor_of(gate)
        assert anchor.pid == shell.pid
        end(shell)
        assert not anchor.alive
        anchor.close()
        os.kill(gate.pid, signal.SIGKILL)


def test_orphaned_gate_has_no_anchor(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parent is init then, and every user's processes are below init.

    Here, its parent may be a subreaper of the test machine instead: then the test puts init in its
    place in what /proc says.
    """
    shell = start(listener, "/bin/sh", "-c", '"$@" & ', "sh")
    connection, _ = listener.accept()
    shell.wait()
    look_up = peers._status
    with connection:
        gate = peer_of(connection)
        orphan = look_up(gate.pid)
        assert orphan.parent != shell.pid
        below_init = replace(orphan, parent=1)
        monkeypatch.setattr(
            peers, "_status", lambda pid: below_init if pid == gate.pid else look_up(pid)
        )
        with pytest.raises(NotPermittedError) as refused:
            anchor_of(gate)
        assert refused.value.reason == "the gate does not run below an SSH connection"
        os.kill(gate.pid, signal.SIGKILL)


def test_dead_gate_has_no_anchor(listener: socket.socket) -> None:
    child = start(listener)
    connection, _ = listener.accept()
    with connection:
        gate = peer_of(connection)
        end(child)
        with pytest.raises(NotPermittedError):
            anchor_of(gate)


def test_anchor_is_refused_if_the_gates_process_has_another_uid(listener: socket.socket) -> None:
    """As when the pid now belongs to another user's process."""
    child = start(listener)
    connection, _ = listener.accept()
    with connection, pytest.raises(NotPermittedError):
        anchor_of(Peer(child.pid, os.getuid() + 1))
    end(child)


def test_lineage_ends_at_another_users_process(listener: socket.socket) -> None:
    child = start(listener)
    connection, _ = listener.accept()
    with connection:
        peer = peer_of(connection)
        assert list(lineage(peer))[:2] == [child.pid, os.getpid()]
        assert list(lineage(Peer(peer.pid, peer.uid + 1))) == []
        assert 1 not in lineage(peer)
    end(child)


def test_lineage_of_a_dead_process_is_empty(listener: socket.socket) -> None:
    child = start(listener)
    connection, _ = listener.accept()
    with connection:
        peer = peer_of(connection)
        end(child)
        assert list(lineage(peer)) == []
