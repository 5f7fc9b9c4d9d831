"""A terminal that a test can type at and read, as its person sees it: the real tmux."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING

from tests.stage.machine import LOGS
from tests.stage.process import ENVIRONMENT, Process
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from tests.stage.client import Client

#: The shell's, in the terminal.
PROMPT = "pc$ "

_numbers = itertools.count(1)


class Tmux:
    """A shell of `pc`'s person in a terminal of so many columns and rows."""

    def __init__(
        self,
        pc: Client,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._pc = pc
        self._socket = pc.person.directory(pc.person.home / "tmux") / f"{next(_numbers)}"
        config = self._socket.with_suffix(".conf")
        config.write_text(
            f"set -g default-size {columns}x{rows}\n"
            "set -g status off\n"
            "set -g default-terminal tmux-256color\n"
            # Set there: a shell that is not interactive, as the one between, takes PS1 away.
            f"set -g default-command 'exec env \"PS1={PROMPT}\" bash --noprofile --norc -i'\n"
            "new-session -d\n"
        )
        self._config = pc.person.owns(config, 0o644)
        path = f"{pc.programs}:{ENVIRONMENT['PATH']}"
        self._env = {**pc.env, "PATH": path, **(env or {})}

    def __enter__(self) -> Self:
        argv = ["tmux", "-D", "-S", str(self._socket), "-f", str(self._config)]
        log = LOGS / f"{self._pc.person.name}-tmux-{self._socket.name}"
        self.process = Process(argv, log, person=self._pc.person, env=self._env)
        self.wait_for(PROMPT.strip())
        return self

    def __exit__(self, *error: object) -> None:
        self._tmux("kill-server")
        self.process.stop()

    def attach_command(self) -> list[str]:
        """What shows this terminal in another one."""
        return ["tmux", "-S", str(self._socket), "attach"]

    def type(self, text: str) -> None:
        """As a keyboard does; no Enter."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """`Enter`, `Up`, `C-c` and other names of tmux's."""
        self._tmux("send-keys", "--", *keys)

    def enter(self, text: str) -> None:
        self.type(text)
        self.press("Enter")

    def clear(self) -> None:
        """The shell's screen, so that what is waited for next is new."""
        self.enter("clear")
        wait_until(
            lambda: self.lines() == [PROMPT.strip()],
            10,
            lambda: f"an empty screen; the terminal shows:\n{self.screen()}",
        )

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        """What the terminal shows, without the empty rest."""
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def screen(self) -> str:
        return "\n".join(self.lines())

    def coloured(self) -> str:
        """The same with its escapes for colours, for a picture of it."""
        return self._tmux("capture-pane", "-p", "-e").rstrip("\n")

    def history(self) -> str:
        """All that was ever shown, without what was taken back."""
        return self._tmux("capture-pane", "-p", "-S", "-").rstrip("\n")

    def title(self) -> str:
        """What a program has made of the terminal's own title."""
        return self._tmux("display-message", "-p", "#{pane_title}").rstrip("\n")

    def record(self) -> Path:
        """From now on, each byte that reaches the terminal is in this file."""
        path = self._socket.with_suffix(".bytes")
        self._tmux("pipe-pane", f"exec cat > {path}")
        wait_until(path.exists, 10, "tmux to record")
        return path

    def wait_for(self, text: str, deadline: float = 10) -> str:
        """Until `text` is shown; the whole screen."""
        return wait_until(
            lambda: screen if text in (screen := self.screen()) else "",
            deadline,
            lambda: f"{text!r} in the terminal, which shows:\n{self.screen()}",
        )

    def wait_gone(self, text: str, deadline: float = 10) -> str:
        return wait_until(
            lambda: "" if text in (screen := self.screen()) else screen or " ",
            deadline,
            lambda: f"{text!r} to go from the terminal, which shows:\n{self.screen()}",
        )

    def wait_for_prompt(self, deadline: float = 10) -> list[str]:
        """Until the shell has its prompt back; the lines above it."""
        wait_until(
            lambda: self.lines()[-1] == PROMPT.strip() and len(self.lines()) > 1,
            deadline,
            lambda: f"the shell's prompt; the terminal shows:\n{self.screen()}",
        )
        return self.lines()[:-1]

    def _tmux(self, *words: str) -> str:
        argv = ["tmux", "-S", str(self._socket), *words]
        done = subprocess.run(argv, env=ENVIRONMENT, check=False, text=True, capture_output=True)
        return done.stdout
