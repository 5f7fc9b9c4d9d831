"""The one way to wait on the stage: poll until it is so, or fail saying what never came."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Between two looks: short enough not to slow a test, long enough not to eat a core of two.
POLL = 0.02


class StageError(Exception):
    """A part of the stage did not do what a test needs of it."""


def wait_until(look: Callable[[], T], deadline: float, what: str | Callable[[], str]) -> T:
    """Call `look` until it returns something true, and return that.

    `what` ends the sentence "waited 10 s for ..." of the failure; a function is asked then, and
    can tell what is there instead.
    """
    end = time.monotonic() + deadline
    while not (found := look()):
        if time.monotonic() > end:
            raise StageError(
                f"waited {deadline:g} s for {what if isinstance(what, str) else what()}"
            )
        time.sleep(POLL)
    return found
