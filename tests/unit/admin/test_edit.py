"""`spicetunnel edit`, with real editors (small scripts), real processes and a real terminal."""

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
    """`spicetunnel edit` where no terminal is."""
    return subprocess.run(
        [*COMMAND, "--map", str(path), *options],
        env=environment(editor, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def on_terminal(path: Path, editor: str, *answers: tuple[str, str]) -> tuple[int, str]:
    """Exit code and what the terminal showed; each answer is typed once its question is there."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*COMMAND, "--map", str(path)],
        env=environment(editor),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - for ctrl-C
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
    """What stands in the map's directory besides it and its lock."""
    names = {name.name for name in path.parent.iterdir()}
    return sorted(names - {path.name, f".{path.name}.lock"})


def kept_copy(path: Path, said: str) -> Path:
    """The copy that the command says it kept."""
    (line,) = [line for line in said.splitlines() if line.startswith("what you wrote is kept in ")]
    copy = Path(line.removeprefix("what you wrote is kept in "))
    assert copy.parent.parent == path.parent
    return copy


def test_saved(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(LATER), "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{LATER_SAID}{path}: saved\n"
    assert path.read_text() == LATER
    assert left_beside(path) == []


def test_a_comment_is_no_decision(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(f"{TEXT}# more\n"), "--yes")
    assert done.stdout == f"no decision changes\n{path}: saved\n"
    assert path.read_text() == f"{TEXT}# more\n"


def test_no_change_writes_nothing(path: Path, editor: Editor) -> None:
    before = path.stat()
    done = edit(path, editor.that("pass"), "--yes")
    after = path.stat()
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "no change, nothing is written\n",
        "",
    )
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert left_beside(path) == []


def test_owner_mode_and_attributes_stay(path: Path, editor: Editor) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, 2)
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"ours")
    before = path.stat()
    assert edit(path, editor.writing(LATER), "--yes").returncode == 0
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )
    assert after.st_ino != before.st_ino  # swapped, not written over
    assert os.getxattr(path, "user.note") == b"ours"


def test_the_copy_is_private_and_no_part_of_the_map(path: Path, editor: Editor) -> None:
    look = "print(oct(path.parent.stat().st_mode), oct(path.stat().st_mode), flush=True)"
    done = edit(path, editor.that(look))
    assert done.stdout.startswith("0o40700 0o100600\n")
    (file,) = editor.files
    assert file.name == "vms.yaml"
    assert file.parent.parent == path.parent
    assert not file.parent.name.endswith(".yaml")


def test_an_editor_that_replaces_its_file(path: Path, editor: Editor) -> None:
    """As many do; and with a umask that would make the file untrusted."""
    action = (
        f"os.umask(0); new = path.with_name('new'); new.write_text({LATER!r}); os.rename(new, path)"
    )
    assert edit(path, editor.that(action), "--yes").returncode == 0
    assert path.read_text() == LATER


def test_a_symlinked_map_is_edited_where_it_is(path: Path, editor: Editor) -> None:
    store = path.parent.parent / "store"
    store.mkdir(mode=0o755)
    target = path.rename(store / "real.yaml")
    path.symlink_to(target)
    assert edit(path, editor.writing(LATER), "--yes").returncode == 0
    assert path.is_symlink()
    assert target.read_text() == LATER
    assert editor.files[0].parent.parent == store


def test_visual_goes_before_editor(path: Path, editor: Editor) -> None:
    assert edit(path, "false", "--yes", VISUAL=editor.writing(LATER)).returncode == 0
    assert path.read_text() == LATER


def test_no_shell_reads_the_editors_name(path: Path, tmp_path: Path) -> None:
    done = edit(path, f"true ; touch {tmp_path}/pwned")
    assert done.returncode == 0
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("/no/such/editor", 69, "cannot run '/no/such/editor': no such file or directory"),
        ("false", 69, "the editor 'false' failed (1), nothing is written"),
        ("vi 'x", 64, "EDITOR is no command: 'vi 'x'"),
    ],
)
def test_an_editor_that_does_not_work(path: Path, name: str, code: int, said: str) -> None:
    done = edit(path, name)
    assert done.returncode == code
    assert done.stderr.startswith(f"spicetunnel: {said}\nhint: ")
    assert path.read_text() == TEXT
    assert left_beside(path) == []


def test_what_a_failing_editor_wrote_is_kept(path: Path, editor: Editor) -> None:
    done = edit(path, editor.that(f"path.write_text({LATER!r}); sys.exit(3)"), "--yes")
    assert done.returncode == 69
    assert kept_copy(path, done.stderr).read_text() == LATER
    assert path.read_text() == TEXT


def test_an_editor_that_removes_the_file(path: Path, editor: Editor) -> None:
    done = edit(path, editor.that("path.unlink()"), "--yes")
    assert done.returncode == 73
    assert "no such file or directory" in done.stderr
    assert path.read_text() == TEXT
    assert left_beside(path) == []


def test_a_broken_map_without_a_terminal_is_kept(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(BROKEN), "--yes")
    assert done.returncode == 78
    assert done.stderr.startswith(
        f"{path}:3:3: vm 'vm1' has no 'socket'\n"
        "hint: add 'socket: /PATH', where QEMU listens for SPICE\n"
        f"{path}:4:5: unknown key 'sokcet' in vm 'vm1'\n"
        "hint: did you mean 'socket'?\n"
    )
    assert kept_copy(path, done.stderr).read_text() == BROKEN
    assert path.read_text() == TEXT


def test_without_a_terminal_nothing_is_saved_unasked(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(LATER))
    assert done.returncode == 64
    assert done.stdout == LATER_SAID
    assert done.stderr.endswith(
        "spicetunnel: there is no terminal to ask on\nhint: --yes saves without asking\n"
    )
    assert kept_copy(path, done.stderr).read_text() == LATER
    assert path.read_text() == TEXT


SAVE = "save? [y/N]"
AGAIN = "(e)dit again, (q)uit without saving"


@pytest.mark.parametrize("key", ["y", "Y", "yes"])
def test_yes_on_a_terminal_saves(path: Path, editor: Editor, key: str) -> None:
    code, shown = on_terminal(path, editor.writing(LATER), (SAVE, f"{key}\n"))
    assert code == 0
    assert LATER_SAID in shown
    assert shown.endswith(f"{path}: saved\n")
    assert path.read_text() == LATER
    assert left_beside(path) == []


@pytest.mark.parametrize("key", ["", "n", "no"])
def test_anything_less_than_yes_does_not(path: Path, editor: Editor, key: str) -> None:
    code, shown = on_terminal(path, editor.writing(LATER), (SAVE, f"{key}\n"))
    assert (code, shown.splitlines()[-1]) == (0, "not saved")
    assert path.read_text() == TEXT
    assert left_beside(path) == []


def test_the_difference_is_seen_and_edited_again(path: Path, editor: Editor) -> None:
    write = editor.writing(LATER, TEXT.replace("charlie", "anne"))
    code, shown = on_terminal(path, write, (SAVE, "e\n"), (SAVE, "y\n"))
    assert code == 0
    assert "+ anne: vm1 any time\n- charlie: vm1\n" in shown
    assert "anne" in path.read_text()


def test_problems_are_seen_and_mended(path: Path, editor: Editor) -> None:
    answers = ((AGAIN, "x\n"), (AGAIN, "e\n"), (SAVE, "y\n"))
    code, shown = on_terminal(path, editor.writing(BROKEN, LATER), *answers)
    assert code == 0
    assert f"{path}:4:5: unknown key 'sokcet' in vm 'vm1'\n" in shown
    assert path.read_text() == LATER
    assert editor.files[0] == editor.files[1]


def test_problems_are_seen_and_given_up(path: Path, editor: Editor) -> None:
    code, _ = on_terminal(path, editor.writing(BROKEN), (AGAIN, "q\n"))
    assert code == 78
    assert path.read_text() == TEXT
    assert left_beside(path) == []


@pytest.mark.parametrize("key", ["\x04", "\x03"])
def test_neither_the_end_of_input_nor_an_interrupt_loses_the_copy(
    path: Path, editor: Editor, key: str
) -> None:
    code, shown = on_terminal(path, editor.writing(LATER), (SAVE, key))
    assert code == 130
    assert kept_copy(path, shown).read_text() == LATER


def test_an_interrupt_is_the_editors_affair(path: Path, editor: Editor) -> None:
    """The terminal sends ctrl-C to all in the foreground: an editor may take it for a key."""
    action = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"os.kill(os.getppid(), signal.SIGINT); time.sleep(0.3); path.write_text({LATER!r})"
    )
    assert edit(path, editor.that(action), "--yes").returncode == 0
    assert path.read_text() == LATER


def test_an_interrupt_ends_an_editor_that_does_not_mind_it(path: Path, editor: Editor) -> None:
    action = "import signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)"
    done = edit(path, editor.that(action))
    assert done.returncode == 69
    assert path.read_text() == TEXT


@contextmanager
def editing(path: Path, editor: Editor, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another admin, in the editor until the file `go` is there; then LATER is saved."""
    go = tmp_path / "go"
    wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(go)!r}), True)]"
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(
            [*COMMAND, "--yes", "--map", str(path)],
            env=environment(editor.that(f"{wait}; path.write_text({LATER!r})"), SUDO_USER="anne"),
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


def test_a_second_admin_is_told_who_is_at_it(path: Path, editor: Editor, tmp_path: Path) -> None:
    with editing(path, editor, tmp_path) as first:
        done = edit(path, "true")
        link = tmp_path / "link.yaml"
        link.symlink_to(path)
        through_a_link = edit(link, "true")
    said = f"is being edited by anne (pid {first.pid})\nhint: try later\n"
    assert (done.returncode, done.stderr) == (75, f"spicetunnel: {path} {said}")
    assert (through_a_link.returncode, through_a_link.stderr) == (75, f"spicetunnel: {link} {said}")
    assert first.returncode == 0
    assert path.read_text() == LATER
    assert edit(path, "true").returncode == 0  # and then it is the second one's turn


@pytest.mark.parametrize("how", ["written", "replaced", "touched", "removed", "distrusted"])
def test_a_map_changed_meanwhile_is_not_overwritten(
    path: Path, editor: Editor, tmp_path: Path, how: str
) -> None:
    with editing(path, editor, tmp_path) as process:
        other = f"{TEXT}# by another\n"
        if how == "written":
            path.write_text(other)
        elif how == "removed":
            path.unlink()
        elif how == "distrusted":
            path.chmod(0o666)
        else:
            text = other if how == "replaced" else TEXT
            write_map(tmp_path / "new", text)
            os.rename(tmp_path / "new", path)
        before = path.read_text() if path.exists() else None
    assert process.returncode == 75
    said = (tmp_path / "stderr").read_text()
    assert f"spicetunnel: {path} was changed by someone else meanwhile\nhint: " in said
    assert kept_copy(path, said).read_text() == LATER
    assert (path.read_text() if path.exists() else None) == before


def test_killed_in_the_middle_the_original_is_whole(
    path: Path, editor: Editor, tmp_path: Path
) -> None:
    with editing(path, editor, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert path.read_text() == TEXT
    assert edit(path, "true").returncode == 0  # no lock is left behind


def test_what_was_checked_is_what_is_saved(path: Path, editor: Editor) -> None:
    """An editor that goes on in the background changes its copy, and nothing else."""
    late = (
        f"path.write_text({LATER!r})\n"
        "checked = path.parent / 'checked' / path.name\n"
        "if os.fork() == 0:\n"
        "    while not checked.exists(): time.sleep(0.01)\n"
        "    path.write_text('vms: {}')\n"
        "    print('still writing', flush=True)\n"
        "    os._exit(0)\n"
    )
    code, shown = on_terminal(path, editor.that(late), ("still writing", "y\n"))
    assert code == 0
    assert LATER_SAID in shown
    assert path.read_text() == LATER


def test_an_unfit_original_is_not_edited(path: Path, editor: Editor) -> None:
    path.chmod(0o666)
    done = edit(path, editor.writing(LATER), "--yes")
    said = f"spicetunnel: {path}: may be written by others\nhint: chmod go-w {path}\n"
    assert (done.returncode, done.stderr) == (78, said)
    assert path.read_text() == TEXT


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    done = edit(tmp_path / "missing" / "vms.yaml", "true")
    assert done.returncode == 66
    assert done.stderr.endswith("vms.yaml: cannot be read: no such file or directory\n")
    assert not (tmp_path / "missing").exists()


def test_a_broken_original_can_be_mended(path: Path, editor: Editor) -> None:
    path.write_text(BROKEN)
    done = edit(path, editor.writing(TEXT), "--yes")
    assert done.returncode == 0
    assert done.stdout == (
        "the map as it stands is not valid: what follows is compared with an empty one\n"
        "+ boss: vm1 Mon-Fri 17:00-22:00\n"
        "+ charlie: vm1 any time\n"
        f"{path}: saved\n"
    )


def part(path: Path, text: str) -> Path:
    parts = path.parent / "vms.d"
    parts.mkdir(mode=0o755, exist_ok=True)
    return Path(write_map(parts / "lab.yaml", text))


def test_the_parts_of_the_map_are_checked_with_it(path: Path, editor: Editor) -> None:
    lab = part(path, "vms: {lab: {socket: /run/lab.sock, allow: [{people: tutors}]}}\n")
    path.write_text(f"people: {{tutors: [{{user: anne}}]}}\n{TEXT}")
    done = edit(path, editor.writing(TEXT.replace("vm1:", "lab:")), "--yes")
    assert done.returncode == 78
    assert f"{lab}:1:" in done.stderr
    assert "defined twice, first at " in done.stderr
    assert f"first at {path}:3\n" in done.stderr
    assert "no people 'tutors'" in done.stderr


def test_the_parts_of_the_map_count_in_the_difference(path: Path, editor: Editor) -> None:
    part(path, "vms: {lab: {socket: /run/lab.sock, allow: [{people: tutors}]}}\n")
    path.write_text(f"people: {{tutors: [{{user: anne}}]}}\n{TEXT}")
    done = edit(path, editor.writing(f"people: {{tutors: [{{user: bea}}]}}\n{TEXT}"), "--yes")
    assert done.stdout == f"- anne: lab\n+ bea: lab any time\n{path}: saved\n"


def test_a_part_is_not_a_map(path: Path) -> None:
    done = edit(part(path, "vms: {}\n"), "true")
    assert done.returncode == 64
    assert done.stderr.endswith("lab.yaml is a part of a map\nhint: give --map the main file\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_who_may_not_write_there_is_told(path: Path, tmp_path: Path) -> None:
    for directory in (tmp_path, *list(tmp_path.parents)[:3]):
        if directory != Path("/tmp"):
            directory.chmod(0o755)
    done = subprocess.run(
        [*COMMAND, "--map", str(path)],
        env=environment("true"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user="nobody",
        group="nogroup",
    )
    assert done.returncode == 73
    assert done.stderr == f"spicetunnel: {path.parent}/.vms.yaml.lock: permission denied\n"
