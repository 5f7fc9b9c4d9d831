"""Records which files of spicetunnel the calls of this process go to.

A call is as sys.setprofile counts it: a Python function starts, or a coroutine or generator
continues. Functions without a file, such as a dataclass's __init__, are not recorded.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import spicetunnel

if TYPE_CHECKING:
    from types import FrameType

ROOT = f"{Path(spicetunnel.__file__).parent}/"


def record(path: str) -> None:
    """Record from now on. When the process ends, the calls are written to `path`, in their order:
    a JSON list of [time.monotonic(), file below spicetunnel/]."""
    calls: list[tuple[float, str]] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOT):
            calls.append((time.monotonic(), file.removeprefix(ROOT)))

    def write() -> None:
        sys.setprofile(None)
        Path(path).write_text(json.dumps(calls))

    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
