import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_connect.errors import UsageError
from spice_connect.ui.terminal import StatusLine, Terminal, clean

ANY_TEXT = st.text(st.characters(exclude_categories=()))
BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@given(ANY_TEXT)
def test_clean_removes_all_control_characters(text: str) -> None:
    for character in clean(text):
        assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in BIDI
    clean(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", "a?]0;title?b"),
        ("a\x9b31mb", "a?31mb"),
        ("a\r\nhint: b", "a??hint: b"),
        ("a\u2028b\u202eb\u2066c\u200fd\u061ce", "a?b?b?c?d?e"),
        ("a\x7f\ud800b", "a??b"),
        ('Büro "50 %" 日本 👩\u200d💻', 'Büro "50 %" 日本 👩\u200d💻'),
        ("x" * 1001, "x" * 1000 + "..."),
    ],
)
def test_clean_by_example(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_reason_and_a_hint_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().fail(UsageError("a\nb", "c\nd"))
    assert capsys.readouterr() == ("", "spice-connect: a?b\nhint: c?d\n")


def test_an_empty_hint_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().tell("a")
    assert capsys.readouterr().err == "spice-connect: a\n"


def test_details_are_printed_if_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().detail("a")
    Terminal(verbosity=1).detail("b\x1b")
    assert capsys.readouterr().err == "spice-connect: b?\n"


def test_quiet_prints_results_and_failures_only(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True)
    terminal.inform("a")
    terminal.pass_on(b"ssh's\n")
    terminal.result("b")
    terminal.fail(UsageError("c"))
    assert capsys.readouterr() == ("b\n", "spice-connect: c\n")


def test_ssh_s_messages_are_passed_on_unchanged(capfd: pytest.CaptureFixture[str]) -> None:
    Terminal().pass_on("Wärning: \t\x1b\r\n".encode())
    assert capfd.readouterr().err == "Wärning: \t\x1b\r\n"


def test_of_ssh_s_stderr_lines_go_above_a_prompt_and_its_prompt_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A banner may come after the prompt, which ssh writes past us. Even if quiet."""
    terminal, told = Terminal(quiet=True), list[str]()
    terminal._line = StatusLine(-1)
    monkeypatch.setattr(terminal._line, "tell", told.append)
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        for chunk in b"one\x1b\ntwo\r\nCode: ", b"x", b"y\nthree\n":
            terminal.pass_through(chunk)
    assert told == ["one?", "two", "three"]
    assert (tmp_path / "stderr").read_bytes() == b"Code: xy\n"
