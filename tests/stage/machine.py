"""The machine of the stage: its accounts and directories, made at the start and removed at the end.

What to remove is found by looking at the machine, never from memory. So the next run also removes
what a killed or interrupted run left.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.command import run, uninterrupted
from tests.stage.people import PREFIX, Person
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

#: Files that belong to the accounts: homes, and the keys that sshd accepts.
LIBRARY = Path("/var/lib/spicetunnel-stage")
HOMES = LIBRARY / "home"
AUTHORIZED_KEYS = LIBRARY / "authorized_keys"
#: Files of what runs: sockets, configurations, logs. Short: a socket's path has at most 107 bytes.
RUN = Path("/run/spicetunnel-stage")
LOGS = RUN / "log"
LOCK = Path("/run/spicetunnel-stage.lock")
LOCK_DEADLINE = 900

#: The command line of a gate, idle (gate/idle.py) or not.
GATE = r"spicetunnel[./]gate"
#: The group of the accounts that sshd confines to the gate.
USERS = PREFIX + "users"


class Machine:
    """Reserves the machine for one stage at a time; a context manager."""

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise StageError("the stage needs root: it makes accounts and runs a real sshd")
        self._lock = _take_lock()
        # Our caller may have a strict one, and other users must read the files that we write.
        self._umask = os.umask(0o022)
        try:
            self.clear()
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.clear()
        os.umask(self._umask)
        os.close(self._lock)

    def _prepare(self) -> None:
        with uninterrupted():
            for directory in (LIBRARY, HOMES, AUTHORIZED_KEYS, RUN, LOGS):
                directory.mkdir()
            run("groupadd", "--system", USERS)

    def person(self, name: str, *, gateway: bool = True) -> Person:
        """The account st-NAME, made on first use; `gateway`: sshd confines it to the gate."""
        person = Person(PREFIX + name)
        with uninterrupted():
            if not _exists(person):
                _add(person, "/bin/bash", ["--groups", USERS] if gateway else [])
                _make_home(person)
                _make_key(person)
        return person

    def service(self, name: str) -> Person:
        """The account st-NAME for a daemon: no home, no login, no key."""
        person = Person(PREFIX + name)
        with uninterrupted():
            if not _exists(person):
                _add(person, "/usr/sbin/nologin", [])
        return person

    def clear(self) -> None:
        """Remove every trace of this stage and of any before it."""
        with uninterrupted():
            accounts = list(_accounts())
            end_processes({account.pw_uid for account in accounts})
            for account in accounts:
                run("userdel", "--force", account.pw_name)
            with contextlib.suppress(KeyError):
                run("groupdel", grp.getgrnam(USERS).gr_name)
            shutil.rmtree(LIBRARY, ignore_errors=True)
            shutil.rmtree(RUN, ignore_errors=True)


def processes(uids: set[int]) -> Iterator[int]:
    """The running processes whose real uid is one of these. (The owner of /proc/PID is not the real
    uid for a setuid program.)"""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = dict(
                    line.split(":", 1) for line in (entry / "status").read_text().splitlines()
                )
                if int(fields["Uid"].split()[0]) in uids and "Z" not in fields["State"]:
                    yield int(entry.name)


def words(pid: int) -> str:
    """The process's command line; empty if it has just ended."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def end_processes(uids: set[int]) -> None:
    """Kill all processes of these users. The users are the stage's, so their processes are too."""

    def none_left() -> bool:
        pids = list(processes(uids))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(none_left, 10, "the stage's processes to end")


def _take_lock() -> int:
    """Only one stage at a time: two would use the same accounts and directories."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _lock_now(lock):
        holder = os.pread(lock, 20, 0).decode()
        print(f"waiting until process {holder} releases the stage", file=sys.stderr, flush=True)
        wait_until(lambda: _lock_now(lock), LOCK_DEADLINE, f"process {holder} to release the stage")
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _lock_now(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _accounts() -> Iterator[pwd.struct_passwd]:
    for account in pwd.getpwall():
        if account.pw_name.startswith(PREFIX) and Path(account.pw_dir).is_relative_to(HOMES):
            yield account


def _exists(person: Person) -> bool:
    try:
        ours = person.home.is_relative_to(HOMES)
    except KeyError:
        return False
    if not ours:
        raise StageError(f"the account {person.name} exists and is not the stage's")
    return True


def _add(person: Person, shell: str, options: list[str]) -> None:
    # No password matches '*'. Not '!', which an sshd without PAM takes for a locked account.
    home = str(HOMES / person.name)
    fixed = ["--system", "--user-group", "--home-dir", home, "--shell", shell, "--password", "*"]
    run("useradd", *fixed, *options, person.name)


def _make_home(person: Person) -> None:
    """As adduser does, with the distribution's ~/.bashrc, which runs before a forced command."""
    shutil.copytree("/etc/skel", person.home)
    for path in (person.home, *person.home.iterdir()):
        os.chown(path, person.uid, person.gid)
    person.home.chmod(0o700)


def _make_key(person: Person) -> None:
    person.directory(person.key.parent)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person.name, "-f", str(person.key))
    person.owns(person.key, 0o600)
    public = person.key.with_suffix(".pub")
    person.owns(public, 0o644)
    shutil.copyfile(public, AUTHORIZED_KEYS / person.name)
