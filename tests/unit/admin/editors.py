"""Admins at work with `spicetunnel edit`: real editors (small scripts), processes, terminals."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.admin.office import write_map

TEXT = """\
# the office
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {user: charlie}
      - {user: boss, when: "Mon-Fri 17:00-22:00"}
"""
LATER = TEXT.replace("17:00", "18:00")
LATER_SAID = "~ boss: vm1 Mon-Fri 17:00-22:00 -> Mon-Fri 18:00-22:00\n"
BROKEN = TEXT.replace("socket:", "sokcet:")

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    write_map(directory / "vms.yaml", TEXT)
    return directory / "vms.yaml"


@pytest.fixture
def editor(tmp_path: Path) -> "Editor":
    return Editor(tmp_path)


class Editor:
    """Scripts that stand for what a person does in an editor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "files-edited"

    def that(self, *actions: str) -> str:
        """An editor that does `actions` (Python, with the file's path in `path`), one each time."""
        script = self.directory / "editor.py"
        script.write_text(
            "import os, pathlib, sys, time\n"
            "path = pathlib.Path(sys.argv[-1])\n"
            f"log = pathlib.Path({str(self.log)!r})\n"
            f"actions = {list(actions)!r}\n"
            "with log.open('a') as file: file.write(f'{path}\\n')\n"
            "exec(actions[min(len(log.read_text().splitlines()), len(actions)) - 1])\n"
        )
        return f"{sys.executable} '{script}'"

    def writing(self, *texts: str) -> str:
        return self.that(*(f"path.write_text({text!r})" for text in texts))

    @property
    def files(self) -> list[Path]:
        return [Path(line) for line in self.log.read_text().splitlines()]


COMMAND = [sys.executable, "-c", "from spicetunnel.admin.cli import main; main()", "edit"]


def environment(editor: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"VISUAL", "SUDO_USER"}}
    return {**kept, "EDITOR": editor, "NO_COLOR": "1", **more}


def edit(path: Path, editor: str, *options: str, **more: str) -> Done:
    """Run `spicetunnel edit` without a terminal."""
    return subprocess.run(
        [*COMMAND, "--map", str(path), *options],
        env=environment(editor, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _take_terminal() -> None:
    """Let Ctrl-C on stdin's terminal reach this process, even if the test runner ignores it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_terminal(path: Path, editor: str, *answers: tuple[str, str]) -> tuple[int, str]:
    """Exit code, and what the terminal showed. Each answer is typed when its question appears."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*COMMAND, "--map", str(path)],
        env=environment(editor),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - for ctrl-C
    ) as process:
        os.close(theirs)
        shown = ""
        try:
            for question, keys in answers:
                before = len(shown)
                while question not in shown[before:]:
                    more = read(ours)
                    assert more, f"it ended without {question!r}: {shown}"
                    shown += more
                os.write(ours, keys.encode())
            # Python overlooks a ctrl-C in the moment before it waits for a key.
            nudge = "\x03" if answers[-1][1] == "\x03" else ""
            while more := read(ours, nudge):
                shown += more
        except BaseException:
            process.kill()
            raise
    os.close(ours)
    return process.returncode, shown.replace("\r\n", "\n")


def read(terminal: int, nudge: str = "") -> str:
    """What comes next; `nudge` is typed again after each second of silence."""
    deadline = time.monotonic() + 30
    while not select.select([terminal], [], [], 1)[0]:
        assert time.monotonic() < deadline, "the terminal stays silent"
        os.write(terminal, nudge.encode())
    try:
        return os.read(terminal, 65536).decode()
    except OSError:  # EIO: nobody has it open any more
        return ""


def left_beside(path: Path) -> list[str]:
    """The names in the map's directory besides the map and its lock."""
    names = {name.name for name in path.parent.iterdir()}
    return sorted(names - {path.name, f".{path.name}.lock"})


def kept_copy(path: Path, said: str) -> Path:
    """The copy that the command says it kept."""
    (line,) = [line for line in said.splitlines() if line.startswith("what you wrote is kept in ")]
    copy = Path(line.removeprefix("what you wrote is kept in "))
    assert copy.parent.parent == path.parent
    return copy


@contextmanager
def editing(
    path: Path, editor: Editor, tmp_path: Path, *options: str, text: str = LATER
) -> Iterator[subprocess.Popen[bytes]]:
    """Another admin, in the editor until the file `go` is there; then `text` is saved."""
    go = tmp_path / "go"
    wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(go)!r}), True)]"
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(
            [*COMMAND, "--yes", "--map", str(path), *options],
            env=environment(editor.that(f"{wait}; path.write_text({text!r})"), SUDO_USER="anne"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        ) as process,
    ):
        deadline = time.monotonic() + 30
        while not editor.log.exists() or not editor.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield process
        finally:
            go.touch()
        process.wait(30)
