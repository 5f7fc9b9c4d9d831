"""Short commands that must work, run to their end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A hung package index or a dead lock must not hang the whole run.
TIMEOUT = 300


def run(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command, with `env` added to our environment; returns stdout, raises if it fails."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd="/",
        env={**os.environ, **(env or {})},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except BaseException:
            # With its children: a pip that is interrupted would leave some at work.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise StageError(
            f"{shlex.join(argv)} ended with {process.returncode}: {(err or out).strip()}"
        )
    return out


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and its like back: a useradd cut in the middle leaves locks and half users."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
