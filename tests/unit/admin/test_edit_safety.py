"""`spicetunnel edit` beside another writer, when it is killed, and with maps it must refuse."""

import os
import signal
from pathlib import Path

import pytest

from tests.unit.admin.editors import (
    BROKEN,
    LATER,
    LATER_SAID,
    TEXT,
    Editor,
    edit,
    editing,
    kept_copy,
    on_terminal,
)
from tests.unit.admin.office import write_map

HINT = "hint: create the file, or correct its path\n"


def test_a_second_admin_is_told_who_is_editing(path: Path, editor: Editor, tmp_path: Path) -> None:
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
def test_a_map_changed_during_the_edit_is_not_overwritten(
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
    assert done.stderr.endswith(f"vms.yaml: cannot be read: no such file or directory\n{HINT}")
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
    assert done.stderr.endswith(
        "lab.yaml is a part of a map\nhint: give --map the main file, and edit a part by its name\n"
    )
