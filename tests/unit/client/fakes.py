"""A test environment for the real client: a fake ssh that acts as the gate, and a fake viewer.

The client runs as a process of its own, with real sockets, signals and pidfds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "client"

#: The start of both fakes. They note their pid, so that a test can find them.
HEAD = """#!{python} -IS
# This is a fake.
import json, os, signal, socket, sys, time
if sys.argv[1:] == ["-V"]:
    sys.exit("OpenSSH_9.2p1 (a fake)")

def note(word):
    with open({notes!r}, "a") as notes:
        notes.write(word + chr(10))

def say(event, **keys):
    print(json.dumps(dict(keys, event=event)), flush=True)

def local_socket():
    return sys.argv[sys.argv.index("-L") + 1].split(":")[0]

def local_port():
    return sys.argv[sys.argv.index("-L") + 1].split(":")[1]

def log(*texts):
    with open(sys.argv[sys.argv.index("-E") + 1], "w") as stream:
        for text in texts:
            stream.write(text + "\\r\\n")

def mark(place, *texts):  # as LogVerbose has ssh say it
    log(*(f"debug1: {{place}}:1 (pid={{os.getpid()}}): {{text}}" for text in texts))

def listen():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(local_socket())  # fails if something is there, as with ssh
    listener.listen()
    return listener

def far_socket():
    return sys.argv[sys.argv.index("-L") + 1].rpartition(":")[2]

def ready(title="A title", **keys):
    listener = listen()
    say("ready", session="%08d" % turn, vm="vm1", title=title, **keys)
    return listener

def hold():
    while True:
        signal.pause()

def wait_for(path):
    while not os.path.lexists(path):
        time.sleep(0.005)

note("{name} %d" % os.getpid())
with open({notes!r}) as notes:
    turn = sum(line.startswith("{name} ") for line in notes)  # the first start of it is 1
"""

IMPORTS = "from spice_connect import cli, flood, notify, reconnect, session\n"
IMPORTS += "from spice_connect.tunnel import connection"
READY = "listener = ready()\nhold()\n"
HOLD = "hold()\n"


def command(*args: str, patch: str = "") -> list[str]:
    """The command line of the client. `patch`: code that changes its constants first."""
    code = f"{IMPORTS}\n{patch}\ncli.main()"
    return [sys.executable, *(["-c", code] if patch else ["-m", "spice_connect"]), *args]


def eventually(condition: Callable[[], object], seconds: float = 5) -> None:
    """Poll until true: no sleep is long enough on a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Zombies are dead: their parent has not reaped them yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()  # a zombie's is empty
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


class Stage:
    """The home of one user: configuration, run-time directory, ssh and viewer."""

    def __init__(self, home: Path, runtime: Path) -> None:
        self.home, self.runtime = home, runtime
        self.notes = home / "notes"
        self.environment = os.environ | {
            "STAGE": str(home),  # the mark
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_RUNTIME_DIR": str(runtime),
            "PYTHONPATH": str(SOURCE),
            "PYTHONWARNINGS": "error",
            "TZ": "Europe/Berlin",
        }
        for name in (
            *("SPICE_CONNECT_HOST", "NO_COLOR", "PYTHONUNBUFFERED"),
            "DBUS_SESSION_BUS_ADDRESS",  # else notifications would be shown
            *("DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE"),
        ):
            self.environment.pop(name, None)
        self.clients: list[subprocess.Popen[str]] = []
        self.ssh(READY)
        self.viewer(HOLD)
        self.configure()

    def configure(self, **settings: str) -> None:
        settings = {
            "host": '"kvm"',
            "ssh": f'["{self.home}/ssh"]',
            "viewer": f'["{self.home}/viewer"]',
        } | settings
        file = self.home / "config/spice-connect/config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))

    def ssh(self, body: str) -> None:
        self.script("ssh", body)

    def viewer(self, body: str) -> None:
        self.script("viewer", body)

    def script(self, name: str, body: str) -> None:
        head = HEAD.format(python=sys.executable, name=name, notes=str(self.notes))
        (self.home / name).write_text(head + body)
        (self.home / name).chmod(0o755)

    def start(
        self, *args: str, patch: str = "", stdin: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        client = subprocess.Popen(
            command(*args, patch=patch),
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test runner in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        self.clients.append(client)
        return client

    def run(
        self, *args: str, patch: str = "", stdin: int = subprocess.PIPE
    ) -> tuple[int, str, str]:
        """Exit code, stdout, stderr. Checks that nothing is left behind."""
        client = self.start(*args, patch=patch, stdin=stdin)
        out, err = client.communicate(timeout=20)
        assert self.left_behind() == []
        return client.returncode, out, err

    def noted(self, word: str) -> str:
        """Wait for a note of a fake that starts with `word`; return the rest of it."""
        eventually(lambda: self._find(word) is not None)
        return self._find(word) or ""

    def pid(self, name: str, turn: int = 1) -> int:
        """Wait for the fake's start number `turn`; return its pid."""
        eventually(lambda: len(self.all_noted(name)) >= turn)
        return int(self.all_noted(name)[turn - 1])

    def all_noted(self, word: str) -> list[str]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]

    def go(self, signal: str = "go") -> None:
        """Let the fakes continue that wait for this signal, see `waits`."""
        (self.home / signal).touch()

    def waits(self, signal: str = "go") -> str:
        """A line for a fake: wait for `go`."""
        return f"wait_for({str(self.home / signal)!r})\n"

    def _find(self, word: str) -> str | None:
        found = self.all_noted(word)
        return found[-1] if found else None

    def left_behind(self) -> list[str]:
        """Processes with our mark, without the running clients; files in the run-time directory."""
        living = [f"process {pid}" for pid in self._living()]
        # os.walk: a directory may be removed meanwhile, and rglob would raise.
        found = (
            f"{at}/{name}" for at, dirs, files in os.walk(self.runtime) for name in dirs + files
        )
        return [*living, *found]

    def _living(self) -> list[int]:
        running = {client.pid for client in self.clients if client.poll() is None}
        mark = f"STAGE={self.home}\0".encode()
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        pids = [int(entry.name) for entry in entries if mark in _environment(entry)]
        return [pid for pid in pids if pid not in running]

    def close(self) -> None:
        """End everything, also after a failed test."""
        for client in self.clients:
            client.kill()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.left_behind(), 3)
        for pid in self._living():
            os.kill(pid, signal.SIGKILL)
        for client in self.clients:
            client.communicate()
