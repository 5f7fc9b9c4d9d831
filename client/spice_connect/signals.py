"""Ctrl-C, SIGTERM and SIGHUP raise one exception, which ends the program."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from spice_connect.errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install() -> None:
    for signum in ENDING:
        # If our parent ignores it (nohup, a background job of a shell), so do we.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    for further in ENDING:  # a second signal must not interrupt the clean-up
        signal.signal(further, signal.SIG_IGN)
    raise Interrupted(signum)


def restore(mask: set[int]) -> None:
    """In a child before exec: set the default actions and this signal mask."""
    for signum in ENDING:
        if signal.getsignal(signum) is _interrupt:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def held_back() -> Iterator[set[int]]:
    """Block the signals for a short time. Yields the mask from before."""
    before = set(signal.pthread_sigmask(signal.SIG_BLOCK, ENDING))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
