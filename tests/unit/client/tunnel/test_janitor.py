"""The janitor with real processes. The whole client is in test_session.py."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from spice_connect import signals
from spice_connect.errors import ClientError, UnavailableError
from spice_connect.tunnel import localend
from spice_connect.tunnel.janitor import Child, Janitor, sweep

from tests.unit.client.fakes import children, eventually, is_alive

SLEEP = [sys.executable, "-IS", "-c", "import signal; print(flush=True); signal.pause()"]
STUBBORN = [
    *(sys.executable, "-IS", "-c"),
    "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True)\nwhile 1: signal.pause()",
]


def started(janitor: Janitor, argv: list[str], *, own_group: bool = False) -> int:
    process = janitor.popen(argv, stdout=subprocess.PIPE, own_group=own_group)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()  # it runs and has set its signal handlers
    return process.pid


def test_children_and_directory_are_removed_with_us(runtime: Path) -> None:
    with Janitor(str(runtime)) as janitor:
        pids = [started(janitor, SLEEP), started(janitor, SLEEP, own_group=True)]
        Path(janitor.directory, "file").touch()
        assert Path(janitor.directory).parent == runtime
    assert not any(map(is_alive, pids))
    assert list(runtime.iterdir()) == []


def test_a_stubborn_child_is_killed_after_a_second(runtime: Path) -> None:
    with Janitor(str(runtime)) as janitor:
        pid = started(janitor, STUBBORN)
    assert not is_alive(pid)
    assert list(runtime.iterdir()) == []


def test_a_stopped_child_is_ended_too(runtime: Path) -> None:
    with Janitor(str(runtime)) as janitor:
        pid = started(janitor, SLEEP)
        os.kill(pid, signal.SIGSTOP)
    assert not is_alive(pid)


def test_the_children_of_a_wrapper_script_are_ended(runtime: Path) -> None:
    """The viewer is a shell script without exec."""
    with Janitor(str(runtime)) as janitor:
        wrapper = ["/bin/sh", "-c", '"$@"; :', "sh", *SLEEP]
        (inner,) = children(started(janitor, wrapper, own_group=True))
        assert is_alive(inner)
    eventually(lambda: not is_alive(inner), 1)


def test_a_child_may_have_ended_long_ago(runtime: Path) -> None:
    process = subprocess.Popen(["/bin/true"])
    pidfd = os.pidfd_open(process.pid)
    process.wait()
    sweep([Child(pidfd), Child(pidfd, process.pid)], localend.make_directory(str(runtime)))
    assert list(runtime.iterdir()) == []
    os.close(pidfd)


def test_no_child_inherits_our_socket(runtime: Path) -> None:
    """Or the janitor would not notice our end while that child lives."""
    with Janitor(str(runtime)) as janitor:
        pid = started(janitor, SLEEP)
        ours = os.readlink(f"/proc/self/fd/{janitor.fileno()}")
        fds = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert ours not in fds
        assert not [fd for fd in fds if "pidfd" in fd]


def test_the_janitor_keeps_nothing_from_its_parent(runtime: Path) -> None:
    """No terminal, pipe, directory or signal, and another process name, for killall."""
    reader, writer = os.pipe()
    high = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 200)
    with Janitor(str(runtime)) as janitor:
        proc = Path(f"/proc/{janitor._pid}")
        fds = {int(entry.name): os.readlink(entry) for entry in (proc / "fd").iterdir()}
        assert [fds.pop(fd) for fd in range(3)] == ["/dev/null"] * 3
        sockets = [target for target in fds.values() if target.startswith("socket:")]
        assert len(sockets) == 1
        assert set(fds.values()) <= {*sockets, "/dev/null"}
        assert os.getsid(janitor._pid) == janitor._pid
        assert os.readlink(proc / "cwd") == "/"
        assert (proc / "comm").read_text() == "spice-janitor\n"
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(janitor._pid, signum)
        pid = started(janitor, SLEEP)
    assert not is_alive(pid)
    os.close(reader)
    os.close(writer)
    os.close(high)


def test_without_a_janitor_nothing_is_started(runtime: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot make a directory in .*: no such file"):
        Janitor(str(runtime / "missing"))


def test_a_killed_janitor_is_noticed_and_its_work_done(runtime: Path) -> None:
    with Janitor(str(runtime)) as janitor:
        pids = [started(janitor, SLEEP), started(janitor, SLEEP, own_group=True)]
        os.kill(janitor._pid, signal.SIGKILL)
        eventually(lambda: not is_alive(janitor._pid))
        with pytest.raises(ClientError, match="cannot register"):
            started(janitor, SLEEP)
    assert not any(map(is_alive, pids))
    assert list(runtime.iterdir()) == []


def test_a_program_that_cannot_be_started_is_reported(runtime: Path) -> None:
    with Janitor(str(runtime)) as janitor, pytest.raises(UnavailableError, match="cannot start"):
        janitor.popen(["/nonexistent"], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_child_before_exec_ends_the_child_only(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    """As Ctrl-C, which goes to the whole foreground process group at once."""
    us, real = os.getpid(), os.pidfd_open

    def pidfd_open(pid: int) -> int:
        if os.getpid() != us:
            os.kill(os.getpid(), signum)
        return real(pid)

    before = signal.signal(signum, signals._interrupt)
    try:
        with Janitor(str(runtime)) as janitor:
            monkeypatch.setattr(os, "pidfd_open", pidfd_open)
            process = janitor.popen(SLEEP, stdout=subprocess.DEVNULL)
            assert process.wait(5) == -signum
    finally:
        signal.signal(signum, before)


def test_our_signal_handlers_do_not_change(runtime: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Janitor(str(runtime)):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
