"""A real host: a machine with a systemd of its own as PID 1, booted in half a second.

It is a container made by hand, so that it needs nothing but util-linux: an overlay on the root file
system of rootfs.py, in mount, pid, uts, ipc, cgroup and network namespaces of its own. realhost.sh
is its boot loader.

What it has of a KVM host: systemd with journald and logind, dbus, sshd, users, a loopback network,
reboots. What it lacks: a kernel of its own (so no AppArmor, no virtual terminals, no suspend), any
network to the outside, the memory and pids controllers of cgroup2.

There is one at a time, and its cgroup has a fixed name: whatever runs in it is the host's. So a run
that was killed leaves nothing that the next one does not clear. The host's mounts are in its own
mount namespace only, and go with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.command import run, uninterrupted
from tests.stage.process import ENVIRONMENT, Process
from tests.stage.rootfs import CACHE, root_file_system
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

NAME = "spicetunnel-realhost"
#: The overlay's directories, and the logs of what runs on the host.
PLACE = CACHE / "host"
LOGS = PLACE / "log"
BOOT_SCRIPT = Path(__file__).with_suffix(".sh")

#: The cgroup namespace is the boot script's to make.
NAMESPACES = ("--mount", "--propagation=private", "--pid", "--uts", "--ipc", "--net")
ENTER = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd")


class RealHost:
    """A context manager. The caller holds the stage's lock: there is one real host at a time."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        self.clear()
        self._base = root_file_system()
        try:
            for directory in ("upper", "work", "root", "log"):
                (PLACE / directory).mkdir(parents=True)
            self.boot()
        except BaseException:
            self.clear()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def boot(self) -> None:
        """Start it; returns when every unit has started. Raises StageError where one failed."""
        group = _group()
        group.mkdir(exist_ok=True)
        # The host ends with the test run: unshare(1) dies with us, and the host's init with it. Not
        # by SIGTERM, which unshare(1) blocks.
        dies_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
        unshare = ("unshare", "--fork", "--kill-child", *NAMESPACES, "--")
        script = (str(BOOT_SCRIPT), str(self._base), str(PLACE), str(group))
        process = Process([*dies_with_us, *unshare, *script], LOGS / "boot")
        self._started.append(process)
        process.until(_init, 10, "the host's systemd")
        wait_until(self._has_come_up, 30, lambda: f"the host to come up: {self.failed()}")

    def reboot(self) -> None:
        """As a person does; the disk stays, and what is in /run and /tmp goes."""
        with contextlib.suppress(StageError):  # it may end before it has answered
            self.run("systemctl", "reboot")
        wait_until(self._is_down, 30, "the host to go down")
        self.boot()

    def _is_down(self) -> bool:
        """Whether all that was started on it has ended."""
        # A systemd that shuts down first stops every process, and nsenter(1) stops with the one it
        # waits for. It has to go on, or it never reaps that one.
        for process in self._started:
            process.popen.send_signal(signal.SIGCONT)
        return not any(process.alive() for process in self._started)

    def clear(self) -> None:
        """Remove every trace of this host and of any before it."""
        with uninterrupted():
            _end_group(_group())
            wait_until(self._is_down, 10, "the host's processes to be reaped")
            shutil.rmtree(PLACE, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of its init, as this machine counts. Asked each time: a pid is given away again, and what
        entered another process's namespaces would act on the test machine itself."""
        if pid := _init():
            return pid
        raise StageError("the host is down")

    def run(self, *argv: str, user: str = "root") -> str:
        """Run a command on it; returns stdout, raises StageError if it fails."""
        return run(*self._entered(argv, user))

    def process(self, name: str, *argv: str, user: str = "root") -> HostProcess:
        """Start a command on it. It ends with the test run, as any process of the stage."""
        entered = self._entered(("setpriv", "--pdeathsig", "TERM", "--", *argv), user)
        process = HostProcess(entered, LOGS / name)
        self._started.append(process)
        return process

    def path(self, path: str) -> Path:
        """Where this machine finds a file of the host's.

        Raises StageError where a symbolic link is on the way: it could lead to a file of the test
        machine's own.
        """
        root = Path(f"/proc/{self.pid}/root")
        found = root / path.removeprefix("/")
        for part in (found, *found.parents):
            if part == root:
                return found
            if part.is_symlink():
                raise StageError(f"{path}: a symbolic link is on the way")
        raise StageError(f"{path} is not on the host")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on it: others see the old text, or all of the new one."""
        file = self.path(path)
        new = file.with_name(f".{file.name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.rename(file)

    def connect(self, path: str) -> socket.socket:
        """A connection to a Unix socket on it. To its other end we are nobody: the kernel names no
        process outside of the host's pid namespace."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(self.path(path)))
        return connection

    def journal(self, *units: str) -> str:
        """What these services have written in this boot."""
        chosen = [f"--unit={unit}" for unit in units]
        return self.run("journalctl", "--boot", "--output=cat", "--no-pager", *chosen)

    def failed(self) -> str:
        """Its units that failed, for a person who reads why a test did."""
        with contextlib.suppress(StageError):
            return self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return "its systemd does not answer"

    def _has_come_up(self) -> bool:
        try:
            return bool(self.run("systemctl", "is-system-running"))
        except StageError:  # its exit code says that it is not
            return False

    def _entered(self, argv: Sequence[str], user: str) -> list[str]:
        enter = ("nsenter", "--target", str(self.pid), *ENTER, "--")
        # Names are looked up on the host: nsenter(1) takes numbers only.
        who = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--")
        home = "/root" if user == "root" else f"/home/{user}"
        env = {**ENVIRONMENT, "HOME": home, "USER": user, "LOGNAME": user}
        environment = ("env", "-i", *(f"{name}={value}" for name, value in env.items()))
        return [*enter, *who, *environment, *argv]


class HostProcess(Process):
    """A command in the host's namespaces. nsenter(1) forks it, waits for it, and passes no signal
    on: so signals are sent to the command itself."""

    def signal(self, number: int) -> None:
        for pid in _children(self.pid):
            os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, deadline: float = 5) -> None:
        """TERM, then KILL for what does not listen."""
        self.signal(signal.SIGTERM)
        try:
            self.wait(deadline)
        except StageError:
            self.kill()


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def _group() -> Path:
    """The host's group in the hierarchy of cgroup2, wherever this machine has that."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4]) / NAME
    raise StageError("a real host needs a mounted cgroup2 hierarchy")


def _init() -> int:
    """The host's PID 1, as this machine counts; 0 where none is. systemd makes this group and moves
    to it: by then the host's files are the only ones that it has."""
    try:
        return int((_group() / "init.scope" / "cgroup.procs").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def _end_group(group: Path) -> None:
    """Kill all that is in it, and remove it."""
    if not group.is_dir():
        return
    (group / "cgroup.kill").write_text("1")
    events = group / "cgroup.events"
    wait_until(lambda: "populated 0" in events.read_text(), 10, "the host's processes to end")
    for directory, _, _ in os.walk(group, topdown=False):
        Path(directory).rmdir()
