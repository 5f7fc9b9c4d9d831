"""`spicetunnel edit` with real editors (small scripts): what is saved, and what is kept."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.admin.cli import cli, run
from tests.unit.admin.editors import (
    BROKEN,
    LATER,
    LATER_SAID,
    TEXT,
    Editor,
    edit,
    kept_copy,
    left_beside,
)


def test_saved(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(LATER), "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{LATER_SAID}{path}: saved\n"
    assert path.read_text() == LATER
    assert left_beside(path) == []


def test_a_comment_changes_no_decision(path: Path, editor: Editor) -> None:
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


def test_visual_wins_over_editor(path: Path, editor: Editor) -> None:
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
        ("vi 'x", 64, "EDITOR is not a command: 'vi 'x'"),
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
        "     3 |   vm1:\n"
        "       |   ^\n"
        "hint: add 'socket: /PATH', where QEMU listens for SPICE\n"
        f"{path}:4:5: unknown key 'sokcet' in vm 'vm1'\n"
        "     4 |     sokcet: /run/vm1.sock\n"
        "       |     ^\n"
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


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own and perhaps the checkout."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def edit_as_nobody(vm_map: Path) -> int:
    assert cli.commands["edit"]  # imported while we may read the checkout, which may be private
    os.seteuid(65534)
    try:
        return run(["edit", "--map", str(vm_map)])
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_directory_that_the_admin_may_not_write(
    path: Path, open_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vm_map = Path(shutil.copy(path, open_directory / "vms.yaml"))
    assert edit_as_nobody(vm_map) == 73
    lock = f"{open_directory}/.vms.yaml.lock"
    assert capsys.readouterr().err == (
        f"spicetunnel: {lock}: permission denied\nhint: run it as root\n"
    )


def test_an_edit_warns_of_the_accounts_that_it_is_the_first_to_name(
    path: Path, editor: Editor
) -> None:
    named = TEXT.replace("charlie}", "[charlie, no-such-user]}")
    done = edit(path, editor.writing(named), "--yes")
    assert done.returncode == 0
    warning, hint = done.stderr.splitlines()
    assert warning == f"{path}:6: warning: no user 'no-such-user' on this server"
    assert hint.startswith("hint: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_map_that_the_admin_may_not_read(
    path: Path, open_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vm_map = Path(shutil.copy(path, open_directory / "vms.yaml"))
    vm_map.chmod(0o600)
    assert edit_as_nobody(vm_map) == 66
    assert capsys.readouterr().err == (
        f"spicetunnel: {vm_map}: cannot be read: permission denied\nhint: run it as root\n"
    )
