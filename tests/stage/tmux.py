"""A terminal that a test can type in and read as its user sees it: the real tmux."""

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

#: The prompt of the shell in the terminal.
PROMPT = "pc$ "

_numbers = itertools.count(1)


class Tmux:
    """A shell of `pc`'s person in a terminal of this size; a context manager."""

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
            # PS1 is set here, because tmux's own, non-interactive shell would remove it.
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
        """The command that shows this terminal in another one."""
        return ["tmux", "-S", str(self._socket), "attach"]

    def type(self, text: str) -> None:
        """Type `text`, without Enter."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names, such as `Enter`, `Up`, `C-c`."""
        self._tmux("send-keys", "--", *keys)

    def enter(self, text: str) -> None:
        self.type(text)
        self.press("Enter")

    def clear(self) -> None:
        """Clear the screen, so that the next wait cannot find old text."""
        self.enter("clear")
        wait_until(
            lambda: self.lines() == [PROMPT.strip()],
            10,
            lambda: f"an empty screen; the terminal shows:\n{self.screen()}",
        )

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        """The lines that the terminal shows, without empty ones at the end."""
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def screen(self) -> str:
        return "\n".join(self.lines())

    def coloured(self) -> str:
        """The screen, with its escape sequences for colours."""
        return self._tmux("capture-pane", "-p", "-e").rstrip("\n")

    def history(self) -> str:
        """The screen and its scrollback; without text that was erased."""
        return self._tmux("capture-pane", "-p", "-S", "-").rstrip("\n")

    def title(self) -> str:
        """The terminal's title, which a program may have set."""
        return self._tmux("display-message", "-p", "#{pane_title}").rstrip("\n")

    def record(self) -> Path:
        """Record all bytes that reach the terminal from now on; returns the file."""
        path = self._socket.with_suffix(".bytes")
        self._tmux("pipe-pane", f"exec cat > {path}")
        wait_until(path.exists, 10, "tmux to record")
        return path

    def wait_for(self, text: str, deadline: float = 10) -> str:
        """Wait until `text` is shown; returns the whole screen."""
        return wait_until(
            lambda: screen if text in (screen := self.screen()) else "",
            deadline,
            lambda: f"{text!r} in the terminal, which shows:\n{self.screen()}",
        )

    def wait_gone(self, text: str, deadline: float = 10) -> str:
        return wait_until(
            lambda: "" if text in (screen := self.screen()) else screen or " ",
            deadline,
            lambda: f"{text!r} to disappear; the terminal shows:\n{self.screen()}",
        )

    def wait_for_prompt(self, deadline: float = 10) -> list[str]:
        """Wait until the shell shows its prompt; returns the lines above it."""
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
