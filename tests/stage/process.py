"""A child process, with its output in files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING, TypeVar

from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from tests.stage.people import Person

T = TypeVar("T")

#: The whole environment of a child. Nothing of the caller's own reaches it.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
ENVIRONMENT["LANG"] = "C.UTF-8"

#: The kernel sends each child SIGTERM when the thread that started it ends, so that not even a
#: `kill -9` of the test run leaves a process. The signals are reset, because a shell's background
#: job ignores SIGINT, and its children would too.
PREFIX = ("env", "--default-signal=HUP,INT,QUIT,PIPE,TERM", "setpriv", "--pdeathsig", "TERM", "--")


class Process:
    """Runs `argv` as `person` (default: our own user). Output goes to `log`.out and `log`.err."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        person: Person | None = None,
        env: Mapping[str, str] | None = None,
        umask: int = 0o022,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = log.name
        self.out_file = log.with_name(log.name + ".out")
        self.err_file = log.with_name(log.name + ".err")
        with self.out_file.open("ab") as out, self.err_file.open("ab") as err:
            self.popen = subprocess.Popen(
                [*PREFIX, *argv],
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd="/",
                env={**ENVIRONMENT, **(person.env if person else {}), **(env or {})},
                user=person.uid if person else None,
                group=person.gid if person else None,
                extra_groups=person.groups if person else None,
                umask=umask,
                pass_fds=pass_fds,
                # A group of its own: Ctrl-C in the demo's terminal reaches only the demo, and a
                # test can send Ctrl-C to a client and its children.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def out(self) -> str:
        return self.out_file.read_text(errors="replace")

    def err(self) -> str:
        return self.err_file.read_text(errors="replace")

    def alive(self) -> bool:
        return self.popen.poll() is None

    def until(self, look: Callable[[], T], deadline: float, what: str) -> T:
        """`wait_until`, but raises StageError with the last output as soon as the process ends."""

        def look_alive() -> T:
            found = look()
            if not found and not self.alive():
                raise StageError(f"{self.name} ended with {self.popen.returncode}: {self.tail()}")
            return found

        return wait_until(look_alive, deadline, what)

    def says(self, text: str, deadline: float = 10) -> str:
        """Wait until `text` is in stdout or stderr; returns both."""
        return self.until(
            lambda: both if text in (both := self.out() + self.err()) else "",
            deadline,
            f"{self.name} to say {text!r}",
        )

    def tail(self) -> str:
        return (self.out() + self.err())[-2000:].strip()

    def wait(self, deadline: float = 10) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        wait_until(lambda: not self.alive(), deadline, f"{self.name} to end")
        return int(self.popen.returncode)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def ctrl_c(self) -> None:
        """SIGINT to the process and its children, as a terminal sends it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._close_stdin()

    def stop(self, deadline: float = 5) -> None:
        """SIGTERM, then SIGKILL after `deadline` seconds."""
        self.popen.terminate()
        try:
            self.popen.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self.popen.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
