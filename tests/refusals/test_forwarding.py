"""sshd forwards to the tunnel socket only. alice, who may use vm1, tries every other forwarding.

Attacks run with an open session, because sshd and broker allow the most then.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import asyncssh
import paramiko
import pytest

from tests.refusals.attacker import (
    SECRET,
    held_session,
    local_socket,
    nobody_came,
    read_to_end,
    request,
    tcp_treasure,
    transport,
    unix_treasure,
    visit,
    wait_for_socket,
)
from tests.stage.broker import CONTROL, TUNNEL
from tests.stage.machine import LOGS, RUN
from tests.stage.process import Process
from tests.stage.sockets import free_port
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

READY = "vm1 is ready"
DENIED = "but the request was denied"  # sshd's log when PermitOpen refuses


@pytest.fixture(autouse=True)
def _running(broker: Broker, vm1: Vm) -> None:
    """Broker and vm1 run, so that no refusal is due to their absence."""


def session(stage: Stage, person: Person, *options: str, forwards: tuple[str, ...] = ()) -> Process:
    """ssh with a session at vm1, with the options of the attack."""
    ssh = stage.gate_ssh(person, "open vm1", *options, forwards=forwards)
    ssh.says(READY)
    return ssh


def forward_reaches(stage: Stage, person: Person, target: str) -> bytes:
    """What a connection through `-L socket:target` receives, during a session at vm1.

    Fails unless sshd denied it.
    """
    near = local_socket("near")
    with session(stage, person, forwards=(f"{near}:{target}",)) as ssh:
        wait_for_socket(near, ssh)
        said = visit(near)
        wait_until(lambda: "open failed" in ssh.err(), 5, "ssh to say that it was refused")
        assert denied(stage.sshd, target)
        return said


def denied(sshd: Sshd, target: str) -> bool:
    """Whether sshd's rules denied the target. A connection that failed otherwise does not count."""
    host_or_path, _, port = target.partition(":")
    what = f"host {host_or_path} port {port}" if port else f"path {host_or_path}"
    line = f"to connect to {what}, {DENIED}"
    return bool(wait_until(lambda: line in sshd.log(), 5, f"{line!r} in sshd's log"))


def test_naive_force_command_leaves_unix_sockets_open(stage: Stage, alice: Person) -> None:
    """ForceCommand alone does not restrict forwarding. So the refusals below are the drop-in's."""
    near, treasure = local_socket("near"), RUN / "treasure.sock"
    naive = stage.naive_sshd
    with unix_treasure(treasure):
        argv = naive.ssh_argv(alice, "-N", "-L", f"{near}:{treasure}")
        with Process(argv, LOGS / "naive-ssh") as ssh:
            wait_for_socket(near, ssh)
            assert visit(near) == SECRET


def test_naive_force_command_leaves_tcp_open(stage: Stage, alice: Person) -> None:
    with tcp_treasure() as (treasure, port), transport(stage.naive_sshd.login(alice)) as naive:
        channel = naive.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 1))
        assert channel.recv(100) == SECRET
        assert treasure.visitors == 1


def test_local_forward_to_another_vms_socket_is_refused(
    stage: Stage, alice: Person, vm2: Vm
) -> None:
    before = vm2.spice_clients()
    assert forward_reaches(stage, alice, str(vm2.socket)) == b""
    assert vm2.spice_clients() == before


def test_local_forward_to_the_users_own_vms_socket_past_the_broker_is_refused(
    stage: Stage, alice: Person, vm1: Vm
) -> None:
    assert forward_reaches(stage, alice, str(vm1.socket)) == b""


def test_local_forward_to_another_unix_socket_is_refused(stage: Stage, alice: Person) -> None:
    path = RUN / "treasure.sock"
    with unix_treasure(path) as treasure:
        assert forward_reaches(stage, alice, str(path)) == b""
        assert nobody_came(treasure)


def test_local_forward_to_the_control_socket_is_refused(stage: Stage, alice: Person) -> None:
    assert forward_reaches(stage, alice, str(CONTROL)) == b""


def test_local_forward_to_a_tcp_port_is_refused(stage: Stage, alice: Person) -> None:
    with tcp_treasure() as (treasure, port):
        assert forward_reaches(stage, alice, f"127.0.0.1:{port}") == b""
        assert nobody_came(treasure)


@pytest.mark.parametrize(
    "detour",
    ["/run/spicetunnel-stage/run/../run/tunnel.sock", "/{}", "{}/", "{}/.", "{} ", " {}", ".", "*"],
)
def test_other_spellings_of_the_tunnels_path_are_refused(
    sshd: Sshd, alice: Person, detour: str
) -> None:
    """PermitOpen compares whole strings, so another spelling of the path is refused."""
    with held_session(sshd, alice, "vm1") as connection:
        path = detour.format(TUNNEL)
        with pytest.raises(paramiko.ChannelException):
            streamlocal(connection, path)
    assert denied(sshd, path)


def test_path_with_a_nul_ends_the_connection(sshd: Sshd, alice: Person) -> None:
    """sshd ends the whole connection."""
    with held_session(sshd, alice, "vm1") as connection:
        with pytest.raises((paramiko.SSHException, EOFError)):
            streamlocal(connection, f"{TUNNEL}\x00/etc")
        wait_until(lambda: not connection.is_active(), 5, "the connection to end")


def test_symbolic_link_to_another_socket_is_refused(sshd: Sshd, alice: Person) -> None:
    """A user's symbolic link to a socket has another path than the tunnel, so it is refused."""
    link = alice.home / "link.sock"
    link.unlink(missing_ok=True)
    path = RUN / "treasure.sock"
    link.symlink_to(path)
    with unix_treasure(path) as treasure, held_session(sshd, alice, "vm1") as connection:
        with pytest.raises(paramiko.ChannelException):
            streamlocal(connection, str(link))
        assert nobody_came(treasure)


def streamlocal(connection: paramiko.Transport, path: str) -> paramiko.Channel:
    """Ask for direct-streamlocal@openssh.com, which paramiko has no call for."""
    return open_raw(connection, "direct-streamlocal@openssh.com", path.encode(), b"", 0)


class _Kind(str):
    """Equal to no string, so that paramiko adds no fields for the kinds it knows."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


def open_raw(connection: paramiko.Transport, kind: str, *fields: bytes | int) -> paramiko.Channel:
    """Open a channel of any kind. Raises ChannelException if the server refuses it."""
    original = paramiko.Transport._send_user_message  # type: ignore[attr-defined]

    def send(transport: paramiko.Transport, message: paramiko.Message) -> None:
        for field in fields:
            if isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        original(transport, message)

    connection._send_user_message = send.__get__(connection)  # type: ignore[attr-defined]
    try:
        return connection.open_channel(_Kind(kind), timeout=10)
    finally:
        del connection._send_user_message  # type: ignore[attr-defined]


def test_open_raw_can_open_the_granted_socket(sshd: Sshd, alice: Person) -> None:
    """So the refusals above come from the server, not from this helper."""
    with held_session(sshd, alice, "vm1") as connection:
        assert streamlocal(connection, str(TUNNEL)).active


@pytest.mark.parametrize("port", [0, 1, 22, 65534, 65535, 65536, 0xFFFFFFFE, 0xFFFFFFFF])
def test_direct_tcpip_whose_host_is_the_tunnels_path_is_refused(
    sshd: Sshd, alice: Person, port: int
) -> None:
    """PermitOpen's `*` also allows any port of a *host* of that name. sshd's internal port number
    for a path is 0xFFFFFFFE."""
    with held_session(sshd, alice, "vm1") as connection:
        with pytest.raises(paramiko.ChannelException):
            open_raw(connection, "direct-tcpip", str(TUNNEL).encode(), port, b"127.0.0.1", 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "", "*"])
def test_direct_tcpip_to_loopback_is_refused(sshd: Sshd, alice: Person, host: str) -> None:
    with tcp_treasure() as (treasure, port), held_session(sshd, alice, "vm1") as connection:
        with pytest.raises(paramiko.ChannelException):
            open_raw(connection, "direct-tcpip", host.encode(), port, b"127.0.0.1", 1)
        assert nobody_came(treasure)


def test_direct_tcpip_to_sshd_itself_is_refused(sshd: Sshd, alice: Person) -> None:
    with held_session(sshd, alice, "vm1") as connection:
        with pytest.raises(paramiko.ChannelException):
            open_raw(connection, "direct-tcpip", b"127.0.0.1", sshd.port, b"127.0.0.1", 1)


def test_remote_forward_of_a_tcp_port_is_refused(stage: Stage, alice: Person) -> None:
    port = free_port()
    with session(stage, alice, "-R", f"127.0.0.1:{port}:127.0.0.1:1") as ssh:
        ssh.says("remote port forwarding failed")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)


def test_remote_forward_of_a_unix_socket_is_refused(stage: Stage, alice: Person) -> None:
    path = alice.home / "remote.sock"
    with session(stage, alice, "-R", f"{path}:127.0.0.1:1") as ssh:
        ssh.says("remote port forwarding failed")
        assert not path.exists()


def test_remote_forward_on_the_brokers_own_path_is_refused(stage: Stage, alice: Person) -> None:
    """The stage's sshd sets StreamLocalBindUnlink, yet the broker's socket is not replaced."""
    inode = TUNNEL.stat().st_ino
    with session(stage, alice, "-R", f"{TUNNEL}:127.0.0.1:1") as ssh:
        ssh.says("remote port forwarding failed")
    assert TUNNEL.stat().st_ino == inode


def test_dynamic_forward_is_refused(stage: Stage, alice: Person) -> None:
    port = free_port()
    with tcp_treasure() as (treasure, far), session(stage, alice, "-D", f"127.0.0.1:{port}"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as near:
            near.sendall(b"\x05\x01\x00")
            assert near.recv(2) == b"\x05\x00"
            near.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + far.to_bytes(2, "big"))
            assert SECRET not in read_to_end(near)
        assert denied(stage.sshd, f"127.0.0.1:{far}")
        assert nobody_came(treasure)


def test_stdio_forward_is_refused(stage: Stage, alice: Person) -> None:
    with tcp_treasure() as (treasure, port):
        with stage.gate_ssh(alice, "", "-W", f"127.0.0.1:{port}") as ssh:
            assert ssh.wait() == 255
            assert SECRET.decode() not in ssh.out()
        assert denied(stage.sshd, f"127.0.0.1:{port}")
        assert nobody_came(treasure)


def test_tun_device_is_refused(sshd: Sshd, alice: Person) -> None:
    with held_session(sshd, alice, "vm1") as connection, pytest.raises(paramiko.ChannelException):
        open_raw(connection, "tun@openssh.com", 1, 0x7FFFFFFF)


@pytest.mark.parametrize("kind", ["x11", "forwarded-tcpip", "auth-agent@openssh.com", "anything"])
def test_other_channel_kinds_are_refused(sshd: Sshd, alice: Person, kind: str) -> None:
    with held_session(sshd, alice, "vm1") as connection, pytest.raises(paramiko.ChannelException):
        open_raw(connection, kind, b"127.0.0.1", 22, b"127.0.0.1", 22)


def test_agent_forwarding_is_refused(sshd: Sshd, alice: Person) -> None:
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        assert not request(channel, b"auth-agent-req@openssh.com")


def test_x11_forwarding_is_refused(sshd: Sshd, alice: Person) -> None:
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        cookie = (b"MIT-MAGIC-COOKIE-1", b"00" * 16, 0)
        assert not request(channel, b"x11-req", False, *cookie)
    assert not (alice.home / ".Xauthority").exists()


def test_terminal_is_refused(sshd: Sshd, alice: Person) -> None:
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        assert not request(channel, b"pty-req", b"xterm", 80, 24, 0, 0, b"")


def test_terminal_by_openssh_is_refused(stage: Stage, alice: Person) -> None:
    with stage.gate_ssh(alice, "list", "-tt") as ssh:
        ssh.wait()
        assert "PTY allocation request failed" in ssh.err()


def test_requests_are_granted_by_a_naive_sshd(stage: Stage, alice: Person) -> None:
    """sshd grants them without the drop-in. So the refusals above are the drop-in's."""
    with transport(stage.naive_sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        assert request(channel, b"auth-agent-req@openssh.com")
        assert request(channel, b"pty-req", b"xterm", 80, 24, 0, 0, b"")


@pytest.mark.parametrize("what", ["tcp", "unix"])
def test_remote_forward_by_asyncssh_is_refused(sshd: Sshd, alice: Person, what: str) -> None:
    """tcpip-forward and streamlocal-forward requests with an asyncssh client."""

    async def attack() -> None:
        async with connect_asyncssh(sshd, alice) as connection:
            with pytest.raises(asyncssh.ChannelListenError):
                if what == "tcp":
                    await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
                else:
                    path = str(alice.home / "remote.sock")
                    await connection.forward_remote_path(path, "/nowhere")

    asyncio.run(attack())


@pytest.mark.parametrize("what", ["tcp", "unix"])
def test_open_connection_by_asyncssh_is_refused(
    sshd: Sshd, alice: Person, vm2: Vm, what: str
) -> None:
    async def attack() -> None:
        async with connect_asyncssh(sshd, alice) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                if what == "tcp":
                    await connection.open_connection("127.0.0.1", sshd.port)
                else:
                    await connection.open_unix_connection(str(vm2.socket))

    asyncio.run(attack())


def connect_asyncssh(sshd: Sshd, person: Person) -> asyncssh.connection._ACMWrapper:  # type: ignore[name-defined]
    login = sshd.login(person)
    return asyncssh.connect(
        login.host,
        login.port,
        username=login.user,
        client_keys=[str(login.key)],
        known_hosts=([asyncssh.import_public_key(login.host_key)], [], []),
        config=None,
    )
