"""The only way to wait in tests: poll for a condition, or fail and say what was waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two polls: short enough for tests, long enough to leave the two cores free.
POLL = 0.02


class StageError(Exception):
    """A part of the stage did not do what the test needs."""


def wait_until(look: Callable[[], T], deadline: float, what: str | Callable[[], str]) -> T:
    """Call `look` until it returns something true, and return that.

    Raises StageError after `deadline` seconds. `what` ends its message "waited 10 s for ..."; a
    function is called only then, and can say what was found instead.
    """
    end = time.monotonic() + deadline
    while not (found := look()):
        if time.monotonic() > end:
            raise StageError(
                f"waited {deadline:g} s for {what if isinstance(what, str) else what()}"
            )
        time.sleep(POLL)
    return found
