"""Nothing that a client sends changes who it is, or which session it joins."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from tests.refusals.attacker import (
    execute,
    held_session,
    local_socket,
    visit,
    wait_for_socket,
)
from tests.stage.broker import CONTROL, TUNNEL
from tests.stage.machine import LOGS
from tests.stage.process import Process
from tests.stage.spice import link
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture(autouse=True)
def _running(broker: Broker, vm1: Vm) -> None:
    """Broker and vm1 run, so that no refusal is due to their absence."""


# A viewer in a shell on the server: connects, sends the link message, prints the answer.
KNOCK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
data = b""
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    while part := s.recv(65536): data += part
except TimeoutError: data += b"(and waits)"
except ConnectionError: pass
print("came back:", data[:40])
"""


def knock_as(person: Person, name: str) -> str:
    """What `person` receives from tunnel.sock in a process of their own on the server."""
    argv = ["/usr/bin/python3", "-c", KNOCK, str(TUNNEL), link().hex()]
    with Process(argv, LOGS / name, person=person) as process:
        assert process.wait() == 0
        return process.out().splitlines()[-1]


def test_the_tunnel_works_from_inside_its_connection(stage: Stage, alice: Person, vm1: Vm) -> None:
    """So the refusals below are due to who connects, not to what is sent."""
    near = local_socket("near")
    with stage.gate_ssh(alice, "open vm1", forwards=(f"{near}:{TUNNEL}",)) as ssh:
        ssh.says("vm1 is ready")
        wait_for_socket(near, ssh)
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.settimeout(5)
            viewer.connect(str(near))
            viewer.sendall(link())
            reply = viewer.recv(4096)
            assert reply[:4] == b"REDQ"
            assert reply[16:20] == bytes(4)  # error code 0: QEMU accepts us


def test_tunnel_from_a_shell_of_another_user_is_refused(
    sshd: Sshd, alice: Person, mallory: Person
) -> None:
    with held_session(sshd, alice, "vm1"):
        assert knock_as(mallory, "knock-mallory") == "came back: b''"


def test_tunnel_from_a_shell_of_the_same_user_outside_the_connection_is_refused(
    stage: Stage, sshd: Sshd, alice: Person
) -> None:
    mark = stage.broker.mark()
    with held_session(sshd, alice, "vm1"):
        assert knock_as(alice, "knock-alice") == "came back: b''"
    line = stage.broker.wait_audit(lambda line: line["event"] == "channel", since=mark)
    assert line["decision"] == "deny"
    assert line["reason"] == "no session belongs to this connection"


def test_tunnel_from_another_ssh_connection_of_the_same_user_is_refused(
    stage: Stage, sshd: Sshd, alice: Person
) -> None:
    """A second connection without a session of its own cannot use the first one's."""
    near = local_socket("near")
    with held_session(sshd, alice, "vm1"):
        with stage.gate_ssh(alice, "", "-N", forwards=(f"{near}:{TUNNEL}",)) as ssh:
            wait_for_socket(near, ssh)
            assert visit(near, link()) == b""


def test_tunnel_without_a_session_is_refused(stage: Stage, alice: Person) -> None:
    """`ssh -N` forwards without ever running the gate. The broker refuses the channel."""
    near = local_socket("near")
    with stage.gate_ssh(alice, "", "-N", forwards=(f"{near}:{TUNNEL}",)) as ssh:
        wait_for_socket(near, ssh)
        assert visit(near, link()) == b""


def test_tunnel_after_the_session_was_refused_is_refused(
    stage: Stage, alice: Person, vm2: Vm
) -> None:
    near = local_socket("near")
    with stage.gate_ssh(alice, "", "-N", forwards=(f"{near}:{TUNNEL}",)) as ssh:
        wait_for_socket(near, ssh)
        assert execute(stage.sshd.login(alice), b"open vm2")[0] == 77
        assert visit(near, link()) == b""


def test_tunnel_from_a_root_shell_is_refused(sshd: Sshd, alice: Person) -> None:
    with held_session(sshd, alice, "vm1"):
        assert visit(TUNNEL, link()) == b""


def test_two_sessions_of_one_user_each_reach_their_own_vm(
    stage: Stage, carol: Person, vm1: Vm, vm2: Vm
) -> None:
    """Two connections at once, both carol's. Each channel reaches the VM of its own connection."""
    nears = {vm: local_socket(f"near-{vm.name}") for vm in (vm1, vm2)}
    sshs = {
        vm: stage.gate_ssh(carol, f"open {vm.name}", forwards=(f"{near}:{TUNNEL}",))
        for vm, near in nears.items()
    }
    try:
        for vm, ssh in sshs.items():
            ssh.says(f"{vm.name} is ready")
            wait_for_socket(nears[vm], ssh)
        for vm in (vm2, vm1):
            mark = stage.broker.mark()
            with socket.socket(socket.AF_UNIX) as viewer:
                viewer.settimeout(5)
                viewer.connect(str(nears[vm]))
                viewer.sendall(link())
                assert viewer.recv(4) == b"REDQ"
                line = stage.broker.wait_audit(lambda line: line["event"] == "channel", since=mark)
                assert (line["user"], line["vm"]) == (carol.name, vm.name)
    finally:
        for ssh in sshs.values():
            ssh.stop()


def test_second_open_on_the_same_connection_is_refused(sshd: Sshd, carol: Person, vm2: Vm) -> None:
    with held_session(sshd, carol, "vm1") as connection:
        channel = connection.open_session(timeout=10)
        channel.settimeout(10)
        channel.exec_command("open --json vm2")
        refused = json.loads(channel.makefile("r").read())
        assert refused["code"] == channel.recv_exit_status() == 64
        assert "already" in refused["reason"]
        assert "ControlPath=none" in refused["hint"]


GARBAGE = [
    b"",
    b"garbage",
    b"[]",
    b"{}",
    b'{"v":1}',
    b'{"v":2,"op":"open","vm":"vm1"}',
    b'{"v":true,"op":"list"}',
    b'{"v":1,"op":"open"}',
    b'{"v":1,"op":"open","vm":["vm2"]}',
    b'{"v":1,"op":"open","vm":"../vm2"}',
    b'{"v":1,"op":"open","vm":"vm1","take_over":"yes"}',
    b'{"v":1,"op":"closed","channel":1}',
    b'{"v":1,"op":"kick"}',
    b'{"v":1,"op":"__class__"}',
    b'{"v":1,"op":"list","from":7}',
    b'{"v":1,"op":"list","as":7}',
    b'{"v":1,"op":"list","as":"st-bob"}',
    b'{"v":1,"op":"list","as":"a\\u0000b"}',
    b'{"v":1,"op":"list","as":"../bob"}',
    b"[" * 60000,
    b'{"v":' + b"9" * 5000 + b"}",
    b"\xff\xfe\x00",
]


@pytest.mark.parametrize("packet", GARBAGE)
def test_garbage_at_the_control_socket_ends_only_its_connection(
    stage: Stage, sshd: Sshd, alice: Person, packet: bytes
) -> None:
    """It ends that connection only; the broker goes on."""
    before = stage.broker.mark()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(5)
        sock.connect(str(CONTROL))
        sock.send(packet)
        answer = sock.recv(65536)
        assert answer == b"" or json.loads(answer)["event"] == "refused"
    assert not [line for line in stage.broker.audit(before) if line["event"] == "fault"]
    assert execute(sshd.login(alice), b"whoami")[0] == 0


def test_descriptors_sent_to_the_control_socket_are_closed(stage: Stage) -> None:
    def open_descriptors() -> int:
        from pathlib import Path

        return len(list(Path(f"/proc/{stage.broker.pid}/fd").iterdir()))

    before = open_descriptors()
    for _ in range(50):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(CONTROL))
            socket.send_fds(sock, [b'{"v":1,"op":"list"}'], [0, 1, 2])
            sock.settimeout(5)
            sock.recv(65536)
    wait_until(lambda: open_descriptors() <= before, 5, "the descriptors to be closed")


def test_silent_connection_to_the_control_socket_is_closed(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(15)
        sock.connect(str(CONTROL))
        assert sock.recv(65536) == b""


def test_flood_by_one_user_does_not_block_others(
    stage: Stage, sshd: Sshd, alice: Person, mallory: Person
) -> None:
    """A thousand silent connections to each socket. Those over the limit are closed at once."""
    flood = (
        "import socket, sys, time\n"
        "kept = []\n"
        "for path, kind in ((sys.argv[1], 5), (sys.argv[2], 1)):\n"
        "    for _ in range(1000):\n"
        "        s = socket.socket(1, kind); s.connect(path); kept.append(s)\n"
        "print('flooded', flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = ["/usr/bin/python3", "-c", flood, str(CONTROL), str(TUNNEL)]
    with Process(argv, LOGS / "flood", person=mallory) as process:
        process.says("flooded", 30)
        with held_session(sshd, alice, "vm1"):
            pass
        reasons = {str(line.get("reason")) for line in stage.broker.audit()}
        assert "256 connections that ask for nothing" in reasons
