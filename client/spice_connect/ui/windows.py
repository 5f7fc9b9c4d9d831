"""Windows for a user without a terminal: messages, questions, a wait, and the list of VMs.

With GTK 3 by the system's Python (see gtkwindow.py), else with zenity or kdialog. All are programs
that get argument lists or JSON; what they show is clean text (see terminal.py), never markup.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from spice_connect.errors import UnavailableError
from spice_connect.install import how_to
from spice_connect.ui.terminal import clean, encodable

TITLE = "My VMs"
WAIT = "Please wait"
PYTHON = "/usr/bin/python3"
GTK_COMMAND = (PYTHON, "-I", f"{os.path.dirname(__file__)}/gtkwindow.py")
GTK_IS_THERE = 3  # its exit status without input
ZENITY = ("--title", TITLE, "--width=480")


class Answer(NamedTuple):
    """`status` 0: the first button. The others are told by `text`, or by another `status`."""

    status: int
    text: str


class Windows:
    """`program`: what shows them, a path; its base name says how."""

    def __init__(self, program: str) -> None:
        self.program = program

    @property
    def is_gtk(self) -> bool:
        return self.program == PYTHON

    def message(self, reason: str, hint: str = "") -> None:
        """Show it until the user closes it."""
        text = "\n".join(filter(None, (clean(reason), clean(hint))))
        if self.is_gtk:
            self._gtk({"kind": "message", "title": "spice-connect", "text": text})
        elif self._is_zenity():
            self._run([*ZENITY, "--warning", "--no-markup", f"--text={_escaped(text)}"])
        else:
            self._run(["--title", TITLE, "--sorry", text])

    def ask(self, question: str) -> str:
        """One line of the user's; empty for none."""
        if self.is_gtk:
            answer = self._gtk({"kind": "entry", "title": "spice-connect", "text": question})
            return str(json.loads(answer.text)["text"]) if answer.text else ""
        if self._is_zenity():
            return self._run([*ZENITY, "--entry", f"--text={_escaped(question)}"]).text
        return self._run(["--title", TITLE, "--inputbox", question]).text

    def offer(self, about: str, *, wait: bool, take_over: bool) -> str:
        """`wait`, `take over`, or empty: what the user chose of what is offered. Not with GTK."""
        offered = ["wait"] * wait + ["take over"] * take_over
        if not offered:
            self.message(about)
            return ""
        if self._is_zenity():
            extra = [f"--extra-button={word}" for word in offered]
            options = ["--question", "--no-markup", "--switch", "--extra-button=back", *extra]
            said = self._run([*ZENITY, *options, f"--text={_escaped(clean(about))}"]).text
            return said if said in offered else ""
        labels = ["--yes-label", offered[0], "--no-label", offered[-1], "--cancel-label", "back"]
        kind = "--yesnocancel" if len(offered) > 1 else "--yesno"
        labels = labels if len(offered) > 1 else ["--yes-label", offered[0], "--no-label", "back"]
        status = self._run(["--title", TITLE, *labels, kind, clean(about)]).status
        return offered[status] if status < len(offered) else ""

    def pick(self, rows: Sequence[tuple[str, ...]]) -> int | None:
        """The number of the row that the user picked. Not with GTK, which shows changes too."""
        if self._is_zenity():
            columns = ["--list", "--hide-column=1", "--print-column=1", "--text=", "--height=320"]
            names = [f"--column={name}" for name in ("", "VM", "Host", "Title", "State")]
            cells = [clean(cell) or " " for n, row in enumerate(rows) for cell in (str(n), *row)]
            said = self._run([*ZENITY, *columns, *names], "\n".join(cells)).text
        else:
            words = [w for n, row in enumerate(rows) for w in (str(n), clean("  ".join(row)))]
            said = self._run(["--title", TITLE, "--menu", TITLE, *words]).text
        return int(said) if said.isdecimal() and int(said) < len(rows) else None

    def waiting_command(self, text: str) -> tuple[list[str], bytes] | None:
        """The command, and its first input, of a window with a Cancel that ends its parent.

        None if there is no such window: kdialog's needs a bus.
        """
        if self.is_gtk:
            spec = {"kind": "waiting", "title": WAIT, "text": clean(text)}
            return [*GTK_COMMAND], json.dumps(spec).encode() + b"\n"
        if self._is_zenity():
            options = ["--progress", "--pulsate", "--auto-close", "--auto-kill"]
            return [
                self.program,
                f"--title={WAIT}",
                "--width=480",
                *options,
                f"--text={_escaped(clean(text))}",
            ], b"1\n"
        return None

    def _is_zenity(self) -> bool:
        return os.path.basename(self.program) == "zenity"

    def _gtk(self, spec: dict[str, Any]) -> Answer:
        """Show a window of gtkwindow.py until it is closed."""
        process = subprocess.Popen(
            GTK_COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            if process.stdin and process.stdout:
                process.stdin.write(f"{json.dumps(spec)}\n")
                process.stdin.flush()
                return Answer(0, process.stdout.readline())
        return Answer(1, "")

    def _run(self, words: list[str], text: str = "") -> Answer:
        argv = [self.program, *map(encodable, words)]
        null = subprocess.DEVNULL
        done = subprocess.run(
            argv, input=text, stdout=subprocess.PIPE, stderr=null, text=True, check=False
        )
        return Answer(done.returncode, done.stdout.rstrip("\n"))


def _escaped(text: str) -> str:
    """For a text of zenity, which expands backslashes."""
    return text.replace("\\", "\\\\")


def find() -> Windows:
    """Raises UnavailableError if nothing shows windows here."""
    if _has_gtk():
        return Windows(PYTHON)
    for name in ("zenity", "kdialog"):
        if program := shutil.which(name):
            return Windows(program)
    raise UnavailableError("no program here shows windows", how_to("zenity"))


def _has_gtk() -> bool:
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(
            GTK_COMMAND, stdin=null, stdout=null, stderr=null, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == GTK_IS_THERE
