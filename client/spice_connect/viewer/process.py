"""The viewer: its connection file, its process, and why it failed."""

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from spice_connect.errors import UnavailableError, at
from spice_connect.install import how_to
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.localend import LOOPBACK, LocalEnd
from spice_connect.ui.icon import has_display
from spice_connect.ui.terminal import Terminal, clean
from spice_connect.viewer.command import ViewerCommand

FILE = "session.vv"
LAST_WORDS = 4096  # bytes kept of its output

#: Viewers that are known to need a display. Another one, or a script, may do without.
ON_A_DISPLAY = ("remote-viewer", "virt-viewer", "spicy", "vncviewer", "gvncviewer")
#: Where libwayland looks if no variable names a display.
WAYLAND_DEFAULT = "wayland-0"


def check(command: ViewerCommand) -> None:
    """Check that the viewer is installed and can show something, before the login and the seat.

    Raises UnavailableError.
    """
    template = command.template
    if shutil.which(template[0]) is None:
        way = how_to("virt-viewer") if template[0] == "remote-viewer" else "install it"
        raise UnavailableError(
            f"the viewer {template[0]} is not installed",
            f'{way}, or set viewer = ["..."] in the configuration',
        )
    words = (*template[1:], *command.arguments)
    if os.path.basename(template[0]) in ON_A_DISPLAY and not _finds_display(words):
        raise UnavailableError(
            f"there is no display here for {template[0]} (no DISPLAY, no WAYLAND_DISPLAY)",
            "start it in a desktop session; with --no-viewer it prints a socket for another viewer",
        )


def _finds_display(words: Sequence[str]) -> bool:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return (
        sys.platform != "linux"  # where a display has no name
        or has_display()
        or bool(os.environ.get("WAYLAND_SOCKET"))
        or "broadway" in os.environ.get("GDK_BACKEND", "")  # GTK in a browser
        or any(word.startswith("--display") for word in words)
        or (os.path.isabs(runtime) and os.path.exists(f"{runtime}/{WAYLAND_DEFAULT}"))
    )


class Console(NamedTuple):
    """What the viewer shows: where it connects, and the title of its window."""

    local_end: LocalEnd
    title: str
    password: str = ""


class ViewerEnded(NamedTuple):
    """`failure`: None if the user closed the window."""

    failure: UnavailableError | None


class Viewer:
    """A source of one event (see loop.py): its end."""

    def __init__(
        self, janitor: Janitor, command: ViewerCommand, to: Console, terminal: Terminal
    ) -> None:
        file = write_connection_file(janitor.directory, connection_file(to, command.keys))
        argv = command.argv(file=file, local_end=to.local_end, title=clean(to.title))
        terminal.detail(shlex.join(argv))
        # In its own process group, so that the real viewer of a wrapper script is ended too.
        self._janitor, self._file = janitor, file
        self._process = janitor.popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            own_group=True,
            environment=command.environment(janitor.directory),
        )
        self._terminal = terminal
        self._said = b""
        os.set_blocking(self._output(), False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector = selectors.EpollSelector()
        for fd in self._output(), self._pidfd:
            self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int:
        return self._selector.fileno()

    def events(self) -> list[ViewerEnded]:
        status = self._process.poll()  # before reading, so that nothing is missed
        heard = self._listen()
        return [] if status is None or heard else [ViewerEnded(self._failure(status))]

    def close(self) -> None:
        """End it, if it still runs. Another one may follow."""
        self._selector.close()
        os.close(self._pidfd)
        self._janitor.end(self._process)
        with contextlib.suppress(FileNotFoundError):  # with a password, the viewer has deleted it
            os.unlink(self._file)

    def _failure(self, status: int) -> UnavailableError | None:
        if status == 0:
            return None
        how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
        words = self._said.decode(errors="replace").strip().rpartition("\n")[2]
        return UnavailableError(f"the viewer failed ({how})" + (f": {words}" if words else ""))

    def _output(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        return self._process.stdout.fileno()

    def _listen(self) -> bool:
        """Read some of its output; return whether there was any."""
        try:
            chunk = os.read(self._output(), LAST_WORDS)
        except BlockingIOError:
            return False
        if not chunk:  # it has closed its output, but may still run
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._output())
        self._said = (self._said + chunk)[-LAST_WORDS:]
        for line in chunk.splitlines():
            self._terminal.detail(f"viewer says: {line.decode(errors='replace')}")
        return chunk != b""


def write_connection_file(directory: str, connection: str) -> str:
    path = f"{directory}/{FILE}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with at(path), open(fd, "w", encoding="utf-8") as stream:
        stream.write(connection)
    return path


def connection_file(to: Console, more: Mapping[str, str] = MappingProxyType({})) -> str:
    settings = {
        **more,
        "type": "spice",
        **_where(to.local_end),
        # remote-viewer replaces %d by the monitor's number: put an invisible character between.
        "title": clean(to.title).replace("%d", "%\N{WORD JOINER}d"),
        # The viewer deletes a file with a password as soon as it has read it.
        "delete-this-file": "1" if to.password else "0",
        **({"password": to.password} if to.password else {}),
    }
    lines = [f"{key}={_escape(value)}\n" for key, value in settings.items()]
    return "[virt-viewer]\n" + "".join(lines)


def _where(local_end: LocalEnd) -> dict[str, str]:
    return (
        {"unix-path": local_end.path}
        if local_end.path
        else {"host": LOOPBACK, "port": str(local_end.port)}
    )


def _escape(value: str) -> str:
    """Escape as GKeyFile does. It would drop a leading space."""
    for plain, escaped in ("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r"):
        value = value.replace(plain, escaped)
    return "\\s" + value[1:] if value.startswith(" ") else value
