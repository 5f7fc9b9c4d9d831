"""A KVM host: a real host with the product installed as README.md says, a person, and two VMs."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.stage.echovm import PROGRAM, UNIT, VM_DIRECTORY, VM_USER, EchoSession
from tests.stage.install import VENV
from tests.stage.realhost import RealHost
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from tests.stage.process import Process

CHECKOUT = Path(__file__).parents[2]
PREFIX = "/opt/spicetunnel"
PERSON = "charlie"
BROKER, RELAY = "spicetunneld.service", "spicetunnel-relay.service"
SOCKETS = ("spicetunneld.socket", "spicetunnel-relay.socket")

TUNNEL = "/run/spicetunnel/tunnel.sock"
MAP_FILE = "/etc/spicetunnel/vms.yaml"
MAP = f"""\
limits: {{opens-per-minute: 250}}
vms:
  vm1:
    socket: {VM_DIRECTORY}/vm1.sock
    allow: [{{user: {PERSON}}}]
  vm2:
    socket: {VM_DIRECTORY}/vm2.sock
    allow: [{{user: {PERSON}}}]
"""


class KvmHost(RealHost):
    """`venv` is the environment that tests/stage/install.py has made."""

    def __init__(self, venv: Path = VENV) -> None:
        super().__init__()
        self._venv = venv
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._install()
            self._make_person()
            self._make_vms()
        except BaseException:
            self.clear()
            raise
        return self

    def _install(self) -> None:
        """README.md, "Install on the KVM host", line by line."""
        self._copy_venv()
        programs = (f"{PREFIX}/bin/{path.name}" for path in self._venv.glob("bin/spice*"))
        self.run("ln", "-s", *programs, "/usr/bin/")
        self._copy("systemd/sysusers.d/*", "/usr/lib/sysusers.d")
        self.run("systemd-sysusers")
        self._copy("systemd/tmpfiles.d/*", "/usr/lib/tmpfiles.d")
        self.run("systemd-tmpfiles", "--create", "spicetunnel.conf")
        self._copy("systemd/spicetunnel*.*", "/usr/lib/systemd/system")
        self._copy("sshd_config.d/50-spicetunnel.conf", "/etc/ssh/sshd_config.d")
        self.run("sshd", "-t")
        self.run("systemctl", "reload", "ssh")

    def _copy_venv(self) -> None:
        """Its programs name their interpreter by its whole path."""
        there = self.path(PREFIX)
        shutil.copytree(self._venv, there, symlinks=True)
        for program in (there / "bin").iterdir():
            if program.is_file() and not program.is_symlink():
                text = program.read_text()
                program.write_text(text.replace(str(self._venv), PREFIX))

    def _copy(self, pattern: str, directory: str) -> None:
        for source in CHECKOUT.glob(pattern):
            self.write(f"{directory}/{source.name}", source.read_text())

    def _make_person(self) -> None:
        """Root is the person at the PC, which is this host as well."""
        self.run("useradd", "--create-home", "--password=*", "--groups=spicetunnel-users", PERSON)
        key = "/root/.ssh/id_ed25519"
        self.run("install", "--directory", "--mode=700", "/root/.ssh")
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        self.run("install", "--directory", f"--owner={PERSON}", f"/home/{PERSON}/.ssh")
        public = self.path(f"{key}.pub").read_text()
        self.write(f"/home/{PERSON}/.ssh/authorized_keys", public)
        host_key = self.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
        self.write("/root/.ssh/known_hosts", f"localhost {host_key}")

    def _make_vms(self) -> None:
        self.run("useradd", "--system", VM_USER)
        self.run("chown", VM_USER, VM_DIRECTORY)
        self.write("/usr/local/bin/echo-vm", PROGRAM, 0o755)
        self.write("/etc/systemd/system/echo-vm@.service", UNIT)
        self.run("systemctl", "enable", "--now", "echo-vm@vm1", "echo-vm@vm2")
        self.write(MAP_FILE, MAP)
        self.run("chgrp", "spicetunnel", MAP_FILE)
        self.run("chmod", "640", MAP_FILE)

    def show(self, unit: str, name: str) -> str:
        """One of `unit`'s properties."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def main_pid(self, unit: str) -> int:
        """As the host counts; 0 where it does not run."""
        return int(self.show(unit, "MainPID"))

    def session_pids(self) -> set[int]:
        """The relay's processes but for the first, as the host counts."""
        lines = self.run("ps", "-e", "-o", "pid=,user:32=").splitlines()
        pids = {int(pid) for pid, user in map(str.split, lines) if user == "spicetunnel-relay"}
        return pids - {self.main_pid(RELAY)}

    def sessions(self) -> list[dict[str, Any]]:
        """What `spicetunnel sessions` says of each."""
        answer = json.loads(self.run("spicetunnel", "sessions", "--json"))
        return list(answer["sessions"])

    def ssh(self, *arguments: str) -> Process:
        """A plain ssh of a person without our client."""
        name = f"ssh-{next(self._numbers)}"
        return self.process(name, "ssh", "-o", "BatchMode=yes", *arguments)

    @contextlib.contextmanager
    def session(self, vm: str = "vm1") -> Iterator[EchoSession]:
        """A session of the person's, with bytes going through it."""
        near = f"/root/near-{next(self._numbers)}"
        login = f"{PERSON}@localhost"
        with self.ssh("-L", f"{near}:{TUNNEL}", login, "open", vm) as ssh:
            ssh.says(f"{vm} is ready")
            wait_until(self.path(near).is_socket, 5, "ssh to listen")
            with EchoSession(vm, ssh, self.connect(near)) as session:
                yield session
