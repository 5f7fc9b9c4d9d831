"""Lends the display of the user who runs the demo to an account of the stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.command import run
from tests.stage.machine import LOGS, RUN
from tests.stage.process import Process
from tests.stage.screen import Screen
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from tests.stage.people import Person


def lend_display(person: Person) -> Screen | None:
    """The current DISPLAY, with a copy of its cookie for `person`; None if they cannot use it."""
    display = os.environ.get("DISPLAY")
    if not display:
        return None
    cookie = RUN / "cookie"
    try:
        run("xauth", "-f", str(_cookies()), "extract", str(cookie), display)
        person.owns(cookie, 0o600)
    except (StageError, FileNotFoundError):
        return None
    screen = Screen({"DISPLAY": display, "XAUTHORITY": str(cookie)})
    return screen if _lets_in(screen, person) else None


def _cookies() -> Path:
    if file := os.environ.get("XAUTHORITY"):
        return Path(file)
    return Path(f"~{os.environ.get('SUDO_USER', '')}").expanduser() / ".Xauthority"


def _lets_in(screen: Screen, person: Person) -> bool:
    with Process(["xdpyinfo"], LOGS / "xdpyinfo", person=person, env=screen.access) as trial:
        return trial.wait() == 0
