"""Windows by programs of others: their arguments. tests/system/test_person.py has real ones."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from spice_connect.ui.windows import Windows

#: Notes its arguments and its input; says what the test wants.
FAKE = f"""#!{sys.executable} -I
# This is a fake.
import json, os, sys
here = os.path.dirname(sys.argv[0])
json.dump([sys.argv[1:], sys.stdin.read()], open(f"{{here}}/noted", "w"))
sys.stdout.write(open(f"{{here}}/says").read())
sys.exit(int(open(f"{{here}}/status").read()))
"""
HOSTILE = "<b>&amp;\x1b[2J\\n --help"


class Fake:
    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        program = directory / name
        program.write_text(FAKE)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.windows = Windows(str(program))

    def answers(self, says: str = "", status: int = 0) -> None:
        (self._directory / "says").write_text(says)
        (self._directory / "status").write_text(str(status))

    def noted(self) -> tuple[list[str], str]:
        words, read = json.loads((self._directory / "noted").read_text())
        return words, read


@pytest.fixture
def zenity(tmp_path: Path) -> Fake:
    return Fake(tmp_path, "zenity")


@pytest.fixture
def kdialog(tmp_path: Path) -> Fake:
    return Fake(tmp_path, "kdialog")


def test_a_servers_text_is_neither_markup_nor_an_option_for_zenity(zenity: Fake) -> None:
    zenity.answers()
    zenity.windows.message(HOSTILE, "--help")
    words, _ = zenity.noted()
    assert "--no-markup" in words
    assert words[-1] == "--text=<b>&amp;?[2J\\\\n --help\n--help"
    assert [word for word in words if not word.startswith("--")] == ["My VMs"]


def test_zenity_gets_the_rows_as_lines_and_says_the_number(zenity: Fake) -> None:
    zenity.answers("1\n")
    rows = [("vm1", "kvm", "", "off"), ("vm2", "kvm", f"{HOSTILE}\n0", "free")]
    assert zenity.windows.pick(rows) == 1
    words, lines = zenity.noted()
    assert lines.split("\n") == [
        *("0", "vm1", "kvm", " ", "off"),
        *("1", "vm2", "kvm", "<b>&amp;?[2J\\n --help?0", "free"),
    ]
    assert all(word.startswith("--") or word == "My VMs" for word in words)


@pytest.mark.parametrize("said", ["", "2", "-1", "vm1", "0|1", "²"])
def test_an_answer_that_is_no_row_is_none(zenity: Fake, said: str) -> None:
    zenity.answers(said, 1)
    assert zenity.windows.pick([("vm1", "kvm", "", "off")] * 2) is None


@pytest.mark.parametrize(
    ("said", "chosen"), [("wait", "wait"), ("take over", "take over"), ("back", ""), ("", "")]
)
def test_an_offer_by_zenity(zenity: Fake, said: str, chosen: str) -> None:
    zenity.answers(f"{said}\n", 1)
    assert zenity.windows.offer("'vm1' is busy", wait=True, take_over=True) == chosen
    zenity.answers(f"{said}\n", 1)
    assert zenity.windows.offer("'vm1' is closed", wait=False, take_over=False) == ""


@pytest.mark.parametrize(("status", "chosen"), [(0, "wait"), (1, "take over"), (2, ""), (255, "")])
def test_an_offer_by_kdialog(kdialog: Fake, status: int, chosen: str) -> None:
    kdialog.answers("", status)
    assert kdialog.windows.offer("'vm1' is busy", wait=True, take_over=True) == chosen


def test_a_single_offer_by_kdialog(kdialog: Fake) -> None:
    kdialog.answers("", 1)
    assert kdialog.windows.offer("'vm1' is off", wait=True, take_over=False) == ""
    kdialog.answers("", 0)
    assert kdialog.windows.offer("'vm1' is off", wait=True, take_over=False) == "wait"


def test_kdialog_picks_from_a_menu(kdialog: Fake) -> None:
    kdialog.answers("0\n")
    assert kdialog.windows.pick([("vm1", "kvm", HOSTILE, "off")]) == 0
    words, _ = kdialog.noted()
    assert words[-2:] == ["0", "vm1  kvm  <b>&amp;?[2J\\n --help  off"]


def test_a_line_is_asked_for(zenity: Fake) -> None:
    zenity.answers("alice@kvm\n")
    assert zenity.windows.ask("the host") == "alice@kvm"
    assert os.path.basename(zenity.windows.program) == "zenity"
