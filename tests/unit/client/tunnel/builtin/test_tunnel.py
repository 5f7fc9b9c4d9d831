"""The real program against asyncssh's own server: what goes through the tunnel comes back."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest


class Server(asyncssh.SSHServer):
    """Lets everybody in, and forwards to any socket that exists."""

    def begin_auth(self, username: str) -> bool:
        del username
        return False

    def unix_connection_requested(self, dest_path: str) -> bool:
        return os.path.exists(dest_path)


@pytest.fixture
def far(tmp_path: Path) -> str:
    return str(tmp_path / "far")


async def hold(process: asyncssh.SSHServerProcess[str]) -> None:
    if process.command == "list":
        process.stderr.write("one \x1b[7m line\n")
        process.stdout.write("out")
        process.exit(7)
        return
    process.stdout.write("ready\n")
    await process.stdin.read()
    await asyncio.sleep(3600)


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[Path]:
    """The ssh_config by which one comes in as `kvm`."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=hold
    )
    port = listener.get_port()
    known = directory / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    config = directory / "config"
    config.write_text(
        f"Host kvm\n  HostName 127.0.0.1\n  Port {port}\n  User anne\n"
        f"  UserKnownHostsFile {known}\n  IdentityAgent none\n  BatchMode yes\n"
    )
    async with listener:
        yield config


def start(config: Path, near: str, far: str, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-m", "spice_connect.tunnel.builtin", "-F", str(config)]
    words = ["-T", "-a", "-x", "-E", str(log), "-L", f"{near}:{far}", "--", "kvm", "open", "vm1"]
    return subprocess.Popen([*argv, *words], stdout=subprocess.PIPE)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def ask(config: Path, log: Path) -> subprocess.CompletedProcess[str]:
    """The command `list`, with nobody there to answer."""
    argv = [sys.executable, "-P", "-m", "spice_connect.tunnel.builtin", "-F", str(config)]
    words = ["-E", str(log), "-o", "BatchMode=yes", "--", "kvm", "list"]
    return subprocess.run([*argv, *words], capture_output=True, text=True, check=False)


def through(near: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as tunnel:
        tunnel.settimeout(10)
        tunnel.connect(near)
        tunnel.sendall(data)
        tunnel.shutdown(socket.SHUT_WR)
        came = b""
        while part := tunnel.recv(1 << 16):
            came += part
        return came


def test_bytes_and_their_end_come_back(runtime: Path, tmp_path: Path, far: str) -> None:
    near = str(runtime / "near")

    async def play() -> None:
        async with server(tmp_path) as config, await asyncio.start_unix_server(echo, far):
            ssh = start(config, near, far, tmp_path / "log")
            assert ssh.stdout
            with ssh.stdout:
                try:
                    assert await asyncio.to_thread(ssh.stdout.readline) == b"ready\n"
                    assert stat.S_IMODE(os.stat(near).st_mode) == 0o600
                    data = os.urandom(50_000)
                    assert await asyncio.to_thread(through, near, data) == data
                finally:
                    ssh.terminate()
                    await asyncio.to_thread(ssh.wait)

    asyncio.run(play())


def test_a_command_s_status_its_stdout_as_it_is_and_its_stderr_made_safe(tmp_path: Path) -> None:
    async def play() -> subprocess.CompletedProcess[str]:
        async with server(tmp_path) as config:
            return await asyncio.to_thread(ask, config, tmp_path / "log")

    ended = asyncio.run(play())
    assert (ended.returncode, ended.stdout) == (7, "out")
    assert ended.stderr == "one ?[7m line\n"


def test_a_forwarding_that_is_refused_is_named_in_the_log(
    runtime: Path, tmp_path: Path, far: str
) -> None:
    near = str(runtime / "near")

    async def play() -> None:
        async with server(tmp_path) as config:
            ssh = start(config, near, far, tmp_path / "log")
            assert ssh.stdout
            with ssh.stdout:
                try:
                    assert await asyncio.to_thread(ssh.stdout.readline) == b"ready\n"
                    assert await asyncio.to_thread(through, near, b"x") == b""
                finally:
                    ssh.terminate()
                    await asyncio.to_thread(ssh.wait)

    asyncio.run(play())
    assert (tmp_path / "log").read_text().endswith("\ncause: forwarding-refused\n")


@pytest.mark.parametrize("known", [b"", b"other"])
def test_a_host_key_that_is_new_or_another_one(tmp_path: Path, known: bytes) -> None:
    """Neither is accepted where nobody is asked, and nothing is remembered."""

    async def play() -> str:
        async with server(tmp_path) as config:
            file = tmp_path / "known_hosts"
            name = file.read_bytes().split()[0]
            other = asyncssh.generate_private_key("ssh-ed25519").export_public_key()
            file.write_bytes(name + b" " + other if known else b"")
            before = file.read_bytes()
            ended = await asyncio.to_thread(ask, config, tmp_path / "log")
            assert (ended.returncode, file.read_bytes()) == (255, before)
            return (tmp_path / "log").read_text().splitlines()[-1]

    assert asyncio.run(play()) == f"cause: {'changed' if known else 'unknown'}-key"
