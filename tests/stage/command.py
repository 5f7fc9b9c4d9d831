"""Runs short commands that must succeed."""

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

#: Seconds. A hung package index or lock must not hang the whole test run.
TIMEOUT = 300


def run(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command, with `env` added to our environment; returns stdout.

    Raises StageError if it fails, and TimeoutExpired after TIMEOUT seconds.
    """
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
            # The whole group: an interrupted pip would leave its children running.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise StageError(
            f"{shlex.join(argv)} ended with {process.returncode}: {(err or out).strip()}"
        )
    return out


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Block SIGINT, SIGTERM and SIGHUP: an interrupted useradd leaves locks and half an account."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
