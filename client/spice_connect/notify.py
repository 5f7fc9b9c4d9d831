"""Messages about a session, on the terminal and as desktop notifications.

A viewer in full screen hides the terminal. Without notify-send (libnotify) or without a session
bus there are no notifications, which is not an error.
"""

import contextlib
import html
import os
import shutil
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

from spice_connect.errors import ClientError
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.terminal import Terminal, clean, encodable

if TYPE_CHECKING:
    from spice_connect.ui.windows import Windows

PROGRAM = "notify-send"
APP_NAME = "spice-connect"
#: At most LIMIT notifications in SPAN seconds, so that a server cannot flood the desktop.
LIMIT, SPAN = 5, 10.0
#: Seconds that the last notification may take before the clean-up ends notify-send.
DELIVERY = 1.0


class Announcer:
    """Tells the user about their session."""

    def __init__(
        self,
        terminal: Terminal,
        notifier: "Notifier",
        window: "WaitWindow | None" = None,
    ) -> None:
        """`window`: for a user without a terminal."""
        self.terminal = terminal
        self._notifier = notifier
        self._window = window
        self._rights = ""  # as told last

    def tell_rights(self, vm: str, rights: str) -> None:
        """Say what the user may not do at their VM, and until when; once, until it changes."""
        if rights and rights != self._rights:
            self.terminal.inform(f"your rights at '{vm}': {rights}")
        self._rights = rights

    def wait_for(self, vm: str, reason: str) -> None:
        """Show that we wait for the VM, and how to stop that, until `end_wait`."""
        self.terminal.show(f"waiting for '{vm}'")
        if self._window:
            self._window.show(reason or f"waiting for '{vm}'")

    def end_wait(self) -> None:
        if self._window:
            self._window.end()

    def tell(self, reason: str, hint: str = "", *, urgent: bool = False) -> None:
        """`urgent`: show it over a viewer in full screen, where desktops hold back the others."""
        self.terminal.inform(reason, hint)
        self._notifier.show(reason, hint, urgent=urgent)

    def last(self, error: ClientError) -> None:
        """Show why the session ended. On the terminal, cli.run reports it."""
        self._notifier.show_last(error.reason, error.hint)
        error.announced = True


class WaitWindow:
    """Says what we wait for. Its Cancel ends us as Ctrl-C does."""

    def __init__(self, janitor: Janitor, windows: "Windows") -> None:
        self._janitor, self._windows = janitor, windows
        self._process: subprocess.Popen[bytes] | None = None

    def show(self, text: str) -> None:
        self.end()
        command = self._windows.waiting_command(text)
        if command is None:
            return
        argv, first = command
        null = subprocess.DEVNULL
        self._process = self._janitor.popen(
            argv, stdin=subprocess.PIPE, stdout=null, stderr=null, own_group=True
        )
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._process.stdin.fileno(), first)

    def end(self) -> None:
        process, self._process = self._process, None
        if process:
            self._janitor.end(process)


class Notifier:
    def __init__(self, janitor: Janitor, vm: str) -> None:
        self._janitor = janitor
        self._vm = vm
        self._shown = deque[float](maxlen=LIMIT)  # when

    def show(self, reason: str, hint: str, *, urgent: bool) -> None:
        """Start notify-send; do not wait for it."""
        if len(self._shown) < LIMIT or time.monotonic() - self._shown[0] > SPAN:
            self._shown.append(time.monotonic())
            self._start(reason, hint, urgent=urgent)

    def show_last(self, reason: str, hint: str) -> None:
        """Start notify-send and wait a moment for it, since the clean-up would end it."""
        if process := self._start(reason, hint, urgent=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DELIVERY)

    def _start(self, reason: str, hint: str, *, urgent: bool) -> subprocess.Popen[bytes] | None:
        argv, null = _argv(self._vm, reason, hint, urgent=urgent), subprocess.DEVNULL
        if not argv:
            return None
        try:
            return self._janitor.popen(argv, stdout=null, stderr=null, own_group=True)
        except ClientError:
            return None  # a session goes on without notifications


def show_alone(reason: str, hint: str) -> None:
    """Show a notification outside of a session, and wait a moment for it."""
    argv, null = _argv(APP_NAME, reason, hint, urgent=True), subprocess.DEVNULL
    if not argv:
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=DELIVERY, check=False)


def _argv(summary: str, reason: str, hint: str, *, urgent: bool) -> list[str] | None:
    """The command; None if there is no way to show notifications."""
    program = shutil.which(PROGRAM)
    if program is None or not _has_session_bus():
        return None
    return command(program, summary, reason, hint, urgent=urgent)


def command(program: str, summary: str, reason: str, hint: str, *, urgent: bool) -> list[str]:
    urgency = "critical" if urgent else "normal"
    options = [f"--app-name={APP_NAME}", f"--urgency={urgency}"]
    body = "\n".join(_escape(text) for text in (reason, hint) if text)
    return [program, *options, "--", summary, body]


def _escape(text: str) -> str:
    """The body may have markup (by the specification), and notify-send expands backslashes."""
    return encodable(html.escape(clean(text), quote=False).replace("\\", "\\\\"))


def _has_session_bus() -> bool:
    """Checked because libraries would start a bus, which would be left behind."""
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return True
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.isabs(runtime) and os.path.exists(f"{runtime}/bus")
