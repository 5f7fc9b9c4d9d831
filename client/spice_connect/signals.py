"""Ctrl-C, SIGTERM and SIGHUP end the program wherever it is, by one exception."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from spice_connect.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install() -> None:
    for signum in ENDING:
        # Ignored by our parent (nohup, a shell's background job): that was meant.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    for further in ENDING:  # the first one counts; a second must not cut the clean-up short
        signal.signal(further, signal.SIG_IGN)
    raise Interrupted(signum)


def restore(mask: set[int]) -> None:
    """In a child that is about to become another program: what comes from now on ends it."""
    for signum in ENDING:
        if signal.getsignal(signum) is _interrupt:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def held_back() -> Iterator[set[int]]:
    """Not now: what happens here is short and must happen whole. Yields the mask before."""
    before = set(signal.pthread_sigmask(signal.SIG_BLOCK, ENDING))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
