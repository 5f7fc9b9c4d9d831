"""A person's desktop: a window manager and a terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.stage.tmux import Tmux

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from tests.stage.client import Client
    from tests.stage.screen import Screen

COLUMNS, ROWS = 80, 16
TERMINAL = "terminal"  # its window's title


class Desk:
    """The desktop of `pc`'s person on `screen`; a context manager.

    `terminal` types and reads; the terminal's window shows the same text.
    """

    def __init__(self, pc: Client, screen: Screen, env: Mapping[str, str] | None = None) -> None:
        self._pc, self._screen = pc.at(screen), screen
        self.window = ""  # the terminal's
        self.terminal = Tmux(self._pc, COLUMNS, ROWS, env)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            parts.enter_context(self._pc.run("openbox", "--sm-disable"))
            self._screen.wait_for_window_manager()
            parts.enter_context(self.terminal)
            parts.enter_context(self._pc.run(*self._xterm()))
            self.window = self._screen.wait_for_window(TERMINAL)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.close()

    def place(self, title_part: str, x: int, y: int) -> str:
        """Move the window with `title_part` in its title to x, y, on top; returns its id."""
        window = self._screen.wait_for_window(title_part)
        self._screen.move_window(window, x, y)
        self._screen.raise_window(window)
        return window

    def _xterm(self) -> list[str]:
        look = ["-fa", "DejaVu Sans Mono", "-fs", "11", "-bg", "white", "-fg", "black"]
        place = ["-geometry", f"{COLUMNS}x{ROWS}+24+40", "-T", TERMINAL]
        return ["xterm", "+sb", *look, *place, "-e", *self.terminal.attach_command()]
