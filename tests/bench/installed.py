"""Installed products, each with accounts, daemons and an sshd of its own, so that several can run
side by side. The usual stage (tests/stage/stage.py) runs only one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.stage.command import run
from tests.stage.install import PYTHON, install
from tests.stage.machine import LIBRARY, LOGS, RUN, USERS, processes
from tests.stage.process import Process
from tests.stage.sockets import is_listening
from tests.stage.sshd import Sshd
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.stage.machine import Machine

CHECKOUT = Path(__file__).parents[2]


def has_commit(commit: str) -> bool:
    """False outside of git, and in a shallow clone without the commit."""
    try:
        _git("cat-file", "-e", f"{commit}^{{commit}}")
    except StageError:
        return False
    return True


def install_present() -> Path:
    """Install this checkout as the stage does; returns the directory of its programs."""
    return install(CHECKOUT)


def install_commit(commit: str, present: Path) -> Path:
    """The same for `commit`, in an environment of its own, which is removed with the stage.

    Its dependencies are copied from what `install_present` installed: that is faster, and both
    products have the same versions. Dependencies that only the old one has are added.
    """
    tree, venv = LIBRARY / "old-tree", LIBRARY / "old-venv"
    packed = LIBRARY / "old.tar"
    _git("archive", "--output", str(packed), commit)
    shutil.unpack_archive(packed, tree)
    run(PYTHON, "-m", "venv", "--without-pip", str(venv))
    (packages,) = present.parent.glob("lib/python3*/site-packages")
    shutil.copytree(packages, venv / packages.relative_to(present.parent), dirs_exist_ok=True)
    pip = (str(present / "python"), "-I", "-m", "pip", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(LIBRARY), str(tree))
    (wheel,) = LIBRARY.glob("*.whl")
    into = (*pip, "--python", str(venv / "bin" / "python"), "install")
    run(*into, "--force-reinstall", "--no-deps", str(wheel))
    run(*into, str(wheel))
    run("chmod", "-R", "go+rX", str(venv))
    return venv / "bin"


def _git(*arguments: str) -> str:
    # Root may run this in another user's checkout.
    return run("git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT), *arguments)


class Product:
    """A running product; a context manager. `programs`: the directory of its programs."""

    def __init__(
        self, name: str, programs: Path, machine: Machine, vms: Mapping[str, Path]
    ) -> None:
        self.name = name
        self._programs = programs
        self._person = machine.person(name)
        self._broker_user = machine.service(f"{name}-broker")
        self._relay_user = machine.service(f"{name}-relay")
        self._directory = RUN / name
        self._map = self._directory / "vms.yaml"
        self.vms = vms
        self._daemons: dict[str, Process] = {}
        self._parts = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            self._directory.mkdir()
            self._map.write_text(self._map_text())
            parts.callback(self.stop)
            self.start()
            self._sshd = parts.enter_context(Sshd(f"sshd-{self.name}", self._drop_in()))
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.close()

    def ssh(self, vm: str, near: Path) -> list[str]:
        """The command that opens a session at `vm`, with `near` as its local socket.

        Its first line of output contains "ready".
        """
        forward = ("-L", f"{near}:{self._run_dir / 'tunnel.sock'}")
        return [*self._sshd.ssh_argv(self._person, *forward), f"open --json {vm}"]

    def start(self) -> None:
        """Start the daemons: first the relay, if this product has one, then the broker."""
        options = self._start_relay() if self.has_relay else []
        self._broker_user.directory(self._run_dir, 0o755)
        self._broker_user.directory(self._state_dir, 0o700)
        places = ("--map", self._map, "--run-dir", self._run_dir, "--state-dir", self._state_dir)
        argv = [str(self._programs / "spicetunneld"), *map(str, places), *options]
        log = LOGS / f"{self.name}-broker"
        broker = self._daemons["broker"] = Process(argv, log, person=self._broker_user)
        sockets = (self._run_dir / "control.sock", self._run_dir / "tunnel.sock")
        broker.until(lambda: all(map(is_listening, sockets)), 20, "the broker to listen")

    def _start_relay(self) -> list[str]:
        """Start the relay; returns the broker's options for it."""
        directory = self._relay_user.directory(self._directory / "relay")
        os.chown(directory, self._relay_user.uid, self._broker_user.gid)
        directory.chmod(0o2750)
        argv = [str(self._programs / "spicetunnel-relay"), "--dir", str(directory)]
        argv += ["--broker-user", self._broker_user.name]
        log = LOGS / f"{self.name}-relay"
        relay = self._daemons["relay"] = Process(argv, log, person=self._relay_user)
        relay.until(lambda: any(map(is_listening, directory.iterdir())), 20, "the relay to listen")
        return ["--relay-dir", str(directory)]

    @property
    def has_relay(self) -> bool:
        return (self._programs / "spicetunnel-relay").exists()

    def stop(self) -> None:
        for daemon in reversed(list(self._daemons.values())):
            daemon.stop()
        self._daemons.clear()

    def memory(self, sessions: int = 0) -> dict[str, float]:
        """KiB (PSS) of all our processes, by part, without sshd and ssh. Raises StageError unless
        there are as many gates and relay processes as `sessions`."""
        parts = self._processes()
        for part in ("gate", "relay child") if self.has_relay else ("gate",):
            if len(parts[part]) != sessions:
                raise StageError(f"{part}: {len(parts[part])} processes, not {sessions}")
        return {part: sum(map(_pss, pids)) for part, pids in parts.items()}

    def _processes(self) -> dict[str, list[int]]:
        """By part, the processes of this product's three users, without sshd's."""
        parts = {
            "broker": list(processes({self._broker_user.uid})),
            "gate": [pid for pid in processes({self._person.uid}) if not _is_sshd(pid)],
        }
        if self.has_relay:
            parent = self._daemons["relay"].pid
            children = set(processes({self._relay_user.uid})) - {parent}
            parts |= {"relay": [parent], "relay child": list(children)}
        return parts

    @property
    def _run_dir(self) -> Path:
        return self._directory / "run"

    @property
    def _state_dir(self) -> Path:
        return self._directory / "state"

    def _map_text(self) -> str:
        lines = ["limits: {opens-per-minute: 250, sessions-per-user: 250}", "vms:"]
        for vm, path in self.vms.items():
            lines += [f"  {vm}:", f"    socket: {path}", "    allow:"]
            lines += [f"      - user: {self._person.name}"]
        return "\n".join([*lines, ""])

    def _drop_in(self) -> str:
        places = ("--gate", str(self._programs / "spicetunnel-gate"), "--run-dir", self._run_dir)
        command = (self._programs / "spicetunnel", "sshd-config", "--group", USERS, *places)
        return run(*map(str, command))


class Native:
    """The reference: the same ssh directly to the VM's socket, without spicetunnel."""

    name = "native"

    def __init__(self, machine: Machine, vms: Mapping[str, Path]) -> None:
        self._person = machine.person("native", gateway=False)
        self.vms = vms
        self._sshd = Sshd("sshd-native", "")

    def __enter__(self) -> Self:
        self._sshd.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._sshd.__exit__(*error)

    def ssh(self, vm: str, near: Path) -> list[str]:
        """The same as Product.ssh. `cat` runs until our ssh closes its stdin."""
        forward = ("-L", f"{near}:{self.vms[vm]}")
        return [*self._sshd.ssh_argv(self._person, *forward), "echo ready; exec cat"]


def _is_sshd(pid: int) -> bool:
    """Judged by its program: sshd, or sshd-session and sshd-auth of OpenSSH 9.8 and later."""
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name.startswith("sshd")
    except OSError:
        return True  # it has just ended


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
