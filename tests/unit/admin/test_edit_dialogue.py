"""`spicetunnel edit` on a real terminal: what is asked, and what the answers do."""

from pathlib import Path

import pytest

from tests.unit.admin.editors import (
    BROKEN,
    LATER,
    LATER_SAID,
    TEXT,
    Editor,
    edit,
    kept_copy,
    left_beside,
    on_terminal,
)

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
def test_any_other_answer_does_not_save(path: Path, editor: Editor, key: str) -> None:
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


def test_an_interrupt_goes_to_the_editor(path: Path, editor: Editor) -> None:
    """The terminal sends ctrl-C to all in the foreground: an editor may take it for a key."""
    action = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"os.kill(os.getppid(), signal.SIGINT); time.sleep(0.3); path.write_text({LATER!r})"
    )
    assert edit(path, editor.that(action), "--yes").returncode == 0
    assert path.read_text() == LATER


def test_an_interrupt_ends_an_editor_without_a_handler(path: Path, editor: Editor) -> None:
    action = "import signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)"
    done = edit(path, editor.that(action))
    assert done.returncode == 69
    assert path.read_text() == TEXT
