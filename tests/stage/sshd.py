"""A real sshd that allows everything, so that every refusal comes from the drop-in under test."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.command import run
from tests.stage.machine import AUTHORIZED_KEYS, LOGS, RUN, USERS
from tests.stage.process import Process
from tests.stage.sockets import free_port

if TYPE_CHECKING:
    from typing import Self

    from tests.stage.people import Person

HOST = "127.0.0.1"
#: The Host alias in the ssh configurations that the stage writes.
ALIAS = "kvm"

#: As on Debian, the drop-in is included first, and the first value of an option counts.
CONFIG = """\
Include {drop_in}

ListenAddress {host}:{port}
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}/%u
PidFile none
LogLevel DEBUG1
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 200
PerSourceMaxStartups none

# Deliberately wide open.
AcceptEnv *
AllowAgentForwarding yes
AllowStreamLocalForwarding yes
AllowTcpForwarding yes
GatewayPorts yes
PermitTTY yes
PermitTunnel yes
PermitUserEnvironment yes
PermitUserRC yes
StreamLocalBindUnlink yes
X11Forwarding yes
Subsystem sftp /usr/lib/openssh/sftp-server
"""

#: A common configuration, and a useless one: tests/stage_selftest shows that it forwards anything.
NAIVE_DROP_IN = f"""\
Match Group {USERS}
    ForceCommand /bin/echo DENIED
Match all
"""


@dataclass(frozen=True)
class Login:
    """What an SSH library needs to log in."""

    host: str
    port: int
    user: str
    key: Path
    #: The server's public key, "ssh-ed25519 AAAA...".
    host_key: str


class Sshd:
    """An sshd in a directory of its own; a context manager. `drop_in`: the text to Include."""

    def __init__(self, name: str, drop_in: str) -> None:
        self.name = name
        self.port = free_port()
        self.directory = RUN / name
        self.log_file = LOGS / f"{name}.err"
        self.drop_in = drop_in

    def __enter__(self) -> Self:
        self.directory.mkdir(mode=0o755)
        # The privilege separation directory, which Debian's unit makes. Without systemd, we must.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._write_files()
        config = str(self.directory / "sshd_config")
        run("/usr/sbin/sshd", "-t", "-f", config)
        argv = ["/usr/sbin/sshd", "-D", "-e", "-f", config]
        self.process = Process(argv, LOGS / self.name)
        self.process.until(self._answers, 10, f"{self.name} to answer")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stop()
        shutil.rmtree(self.directory)  # so that the name can be used again

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def host_key(self) -> str:
        kind, key, *_ = (self.directory / "host_key.pub").read_text().split()
        return f"{kind} {key}"

    def login(self, person: Person) -> Login:
        return Login(HOST, self.port, person.name, person.key, self.host_key)

    def options(self, person: Person, key: Path | None = None) -> dict[str, str]:
        """The ssh_config(5) options to log in as `person`, with their key or the copy `key`."""
        return {
            "HostName": HOST,
            "Port": str(self.port),
            "User": person.name,
            "IdentityFile": str(key or person.key),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
        }

    def ssh_argv(self, person: Person, *extra: str) -> list[str]:
        """ssh's arguments up to the host, with `extra` options. The caller appends the command."""
        argv = ["ssh", "-F", "/dev/null"]
        for option, value in self.options(person).items():
            argv += ["-o", f"{option}={value}"]
        return [*argv, *extra, "--", HOST]

    def write_ssh_config(self, path: Path, owner: Person, login: Person) -> Path:
        """Write an ssh_config: by `ssh kvm`, `owner` logs in as `login`. Returns `path`."""
        key = path.with_name(f"key-{login.name}")
        key.write_bytes(login.key.read_bytes())
        owner.owns(key, 0o600)
        lines = [f"    {option} {value}" for option, value in self.options(login, key).items()]
        path.write_text("\n".join([f"Host {ALIAS}", *lines, ""]))
        return owner.owns(path, 0o600)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def _write_files(self) -> None:
        drop_in = self.directory / "drop_in.conf"
        drop_in.write_text(self.drop_in)
        host_key = self.directory / "host_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stage", "-f", str(host_key))
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {self.host_key}\n")
        config = CONFIG.format(
            drop_in=drop_in,
            host=HOST,
            port=self.port,
            host_key=host_key,
            authorized_keys=AUTHORIZED_KEYS,
        )
        (self.directory / "sshd_config").write_text(config)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as trial:
                return trial.recv(4) == b"SSH-"
        except OSError:
            return False
