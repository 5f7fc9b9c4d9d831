"""The real host is apart from the machine it runs on, and leaves nothing there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.realhost import PLACE, RealHost
from tests.stage.stage import CHECKOUT
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from tests.stage.stage import Stage

BOOT_AND_WAIT = """\
import sys
from tests.stage.command import run
from tests.stage.realhost import RealHost
with RealHost() as host:
    sleep = host.process("sleep", "sleep", "300")
    print(host.pid, sleep.pid, flush=True)
    sys.stdin.read()
"""


def test_host_sees_no_file_of_this_machine(stage: Stage) -> None:
    canary = Path("/tmp/spicetunnel-stage-canary")
    canary.touch()
    try:
        with RealHost() as host:
            host.reboot()
            mounts = host.path("/proc/1/mountinfo").read_text().splitlines()
            assert not {line.partition(" - ")[2].split()[0] for line in mounts} & kinds_of_disks()
            assert canary.name not in host.run("ls", "/tmp")
        assert canary.exists(), "systemd empties every /tmp that it sees"
    finally:
        canary.unlink()


def kinds_of_disks() -> set[str]:
    lines = Path("/proc/filesystems").read_text().splitlines()
    return {line.strip() for line in lines if not line.startswith("nodev")}


def test_file_is_not_looked_for_behind_a_symbolic_link(stage: Stage) -> None:
    with RealHost() as host:
        host.run("ln", "-s", "/etc", "/srv/link")
        with pytest.raises(StageError, match="symbolic link"):
            host.path("/srv/link/passwd")


def test_boot_script_refuses_to_run_in_this_machines_namespaces() -> None:
    script = CHECKOUT / "tests/stage/realhost.sh"
    with pytest.raises(StageError, match="must be PID 1"):
        run(str(script), "/", "/", "/")


def test_run_that_was_killed_leaves_no_process_and_the_next_one_clears_the_rest(
    stage: Stage,
) -> None:
    argv = [sys.executable, "-B", "-c", BOOT_AND_WAIT]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=CHECKOUT, text=True, stdin=pipe, stdout=pipe) as killed:
        assert killed.stdout
        processes = [Path("/proc") / pid for pid in killed.stdout.readline().split()]
        assert len(processes) == 2
        killed.kill()
    wait_until(lambda: not any(map(runs, processes)), 5, "the host to end")
    assert PLACE.exists()
    RealHost().clear()
    RealHost().clear()
    assert not PLACE.exists()


def runs(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False
