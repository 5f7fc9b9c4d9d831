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
