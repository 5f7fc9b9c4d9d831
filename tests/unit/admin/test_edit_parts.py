"""`spicetunnel edit PART`: one file of vms.d, checked and swapped as the map itself is."""

import os
from pathlib import Path

import pytest

from tests.unit.admin.editors import TEXT, Editor, edit, editing, kept_copy, left_beside
from tests.unit.admin.office import write_map

LAB = "vms: {lab: {socket: /run/lab.sock, allow: [{user: anne}]}}\n"
BEA = LAB.replace("anne", "bea")
CORA = LAB.replace("anne", "cora")
SAID = "- anne: lab\n+ bea: lab any time\n"


@pytest.fixture
def lab(path: Path) -> Path:
    """A part of the map at `path`, beside another one."""
    parts = path.parent / "vms.d"
    parts.mkdir(mode=0o755)
    write_map(parts / "old.yaml", "people: {tutors: [{user: tina}]}\n")
    return Path(write_map(parts / "lab.yaml", LAB))


@pytest.mark.parametrize("name", ["lab", "lab.yaml"])
def test_a_part_is_saved(path: Path, lab: Path, editor: Editor, name: str) -> None:
    lab.chmod(0o640)
    done = edit(path, editor.writing(BEA), "--yes", name)
    assert done.returncode == 0
    assert f"{lab}:1: warning: no user 'bea' on this server\n" in done.stderr, "its real name"
    assert done.stdout == f"{SAID}{lab}: saved\n"
    assert lab.read_text() == BEA
    assert lab.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == TEXT
    assert left_beside(path) == ["vms.d"]
    assert sorted(os.listdir(lab.parent)) == ["lab.yaml", "old.yaml"]


@pytest.mark.parametrize("name", ["vms.yaml", "./vms.yaml", "../etc//vms.yaml"])
def test_a_map_named_by_a_relative_path(
    path: Path, lab: Path, editor: Editor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(path.parent)
    done = edit(path, editor.writing(BEA), "--yes", "lab", "--map", name)
    assert done.stdout.startswith(SAID)
    assert done.stdout.endswith("vms.d/lab.yaml: saved\n")
    assert lab.read_text() == BEA


def test_the_copy_has_the_parts_name(path: Path, lab: Path, editor: Editor) -> None:
    edit(path, editor.that("print(path.read_text(), flush=True)"), "lab")
    assert editor.files[0].name == "lab.yaml"
    assert editor.files[0].parent.parent == lab.parent


def test_a_new_part_gets_owner_and_mode_of_the_map(path: Path, lab: Path, editor: Editor) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, 2)
    path.chmod(0o640)
    text = "vms: {new: {socket: /run/new.sock, allow: [{people: tutors}]}}\n"
    done = edit(path, editor.writing(text), "--yes", "new")
    new = lab.with_name("new.yaml")
    assert done.stdout == f"+ tina: new any time\n{new}: saved\n"
    assert new.read_text() == text
    ours, theirs = new.stat(), path.stat()
    assert (ours.st_mode, ours.st_gid) == (theirs.st_mode, theirs.st_gid)


def test_a_new_part_left_empty_is_not_saved(path: Path, lab: Path, editor: Editor) -> None:
    done = edit(path, editor.that("pass"), "--yes", "new")
    assert (done.returncode, done.stdout) == (0, "no change, nothing is written\n")
    assert sorted(os.listdir(lab.parent)) == ["lab.yaml", "old.yaml"]


def test_the_whole_map_is_checked(path: Path, lab: Path, editor: Editor) -> None:
    text = "vms:\n  vm1: {socket: /run/lab.sock, allow: [{people: nobody}]}\ntimezone: UTC\n"
    done = edit(path, editor.writing(text), "--yes", "lab")
    assert done.returncode == 78
    assert f"{lab}:2:3: vm 'vm1' is defined twice, first at {path}:3\n" in done.stderr
    assert f"{lab}:3:1: " in done.stderr
    assert "no people 'nobody'" in done.stderr
    assert ".edit-" not in done.stderr.partition("what you wrote")[0]
    assert kept_copy(lab, done.stderr).read_text() == text
    assert lab.read_text() == LAB


def test_a_fault_elsewhere_counts(path: Path, lab: Path, editor: Editor) -> None:
    other = lab.with_name("old.yaml")
    other.chmod(0o666)
    done = edit(path, editor.writing(BEA), "--yes", "lab")
    assert done.returncode == 78
    assert f"{other}: may be written by others\n" in done.stderr
    assert lab.read_text() == LAB


@pytest.mark.parametrize(("first", "second"), [([], ["lab"]), (["lab"], []), (["lab"], ["old"])])
def test_one_admin_at_a_time_whatever_the_file(
    path: Path, lab: Path, editor: Editor, tmp_path: Path, first: list[str], second: list[str]
) -> None:
    """Two edits, each good by itself, could be a bad map together."""
    with editing(path, editor, tmp_path, *first):
        done = edit(path, "true", *second)
    assert done.returncode == 75
    assert f"{path} is being edited by anne" in done.stderr


@pytest.mark.parametrize("how", ["written", "replaced", "created"])
def test_a_part_changed_during_the_edit_is_not_overwritten(
    path: Path, lab: Path, editor: Editor, tmp_path: Path, how: str
) -> None:
    if how == "created":
        lab.unlink()
    with editing(path, editor, tmp_path, "lab", text=CORA) as process:
        if how == "replaced":
            lab.unlink()
        write_map(lab, BEA)
    assert process.returncode == 75
    said = (tmp_path / "stderr").read_text()
    assert f"spicetunnel: {lab} was changed by someone else meanwhile\nhint: " in said
    assert lab.read_text() == BEA
    assert kept_copy(lab, said).read_text() == CORA


def test_a_symlinked_part_is_edited_where_it_is(path: Path, lab: Path, editor: Editor) -> None:
    store = path.parent.parent / "store"
    store.mkdir(mode=0o755)
    target = lab.rename(store / "lab-of-the-shop.yaml")
    lab.symlink_to(target)
    assert edit(path, editor.writing(BEA), "--yes", "lab").returncode == 0
    assert lab.is_symlink()
    assert target.read_text() == BEA


def test_a_part_that_others_may_write_is_not_edited(path: Path, lab: Path, editor: Editor) -> None:
    lab.chmod(0o666)
    done = edit(path, editor.writing(BEA), "--yes", "lab")
    assert (done.returncode, lab.read_text()) == (78, LAB)
    assert done.stderr.startswith(f"spicetunnel: {lab}: may be written by others\n")


PATHS = ["", ".", "..", ".lab", ".yaml", "../vms", "a/b", "/etc/passwd", "lab.yml", "lab.yaml."]
ODD = ["a b", "a\n", "ä", "\x1b[2J", "a" * 65, "~lab", "*"]


@pytest.mark.parametrize("name", [*PATHS, *ODD])
def test_names_that_no_part_can_have(path: Path, lab: Path, editor: Editor, name: str) -> None:
    done = edit(path, editor.writing(BEA), "--yes", name)
    assert done.returncode == 64
    first, second = done.stderr.splitlines()
    assert first.startswith("spicetunnel: a part must be a plain name, not '")
    assert second == "hint: 'spicetunnel edit lab' edits vms.d/lab.yaml beside the map"
    assert first.isprintable()
    assert not editor.log.exists()


def test_without_a_directory_of_parts(path: Path, editor: Editor) -> None:
    done = edit(path, editor.writing(LAB), "--yes", "lab")
    parts = path.parent / "vms.d"
    said = f"spicetunnel: {parts} is not a directory\nhint: mkdir -m 755 {parts}\n"
    assert (done.returncode, done.stderr) == (73, said)
    assert not parts.exists()
