"""The status line on an emulated terminal (pyte). Real ones: tests/system/test_terminal_talk.py."""

import os
import pty
import tty
from collections.abc import Iterator

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_connect.ui.terminal import StatusLine, is_capable

COLUMNS, ROWS = 30, 8


class Desk:
    """A terminal with our status line, to which others write too."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.slave = slave
        tty.setraw(slave)
        self.line = StatusLine(slave)
        self.line._is_ours = lambda: True  # type: ignore[method-assign]
        self.line._size = lambda: (COLUMNS, ROWS)  # type: ignore[method-assign]
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000, ratio=0.01)
        self._stream = pyte.ByteStream(self.screen)

    def others_write(self, text: str) -> None:
        """Text with the line ends that the kernel would make; the terminal is in raw mode."""
        os.write(self.slave, text.replace("\n", "\r\n").encode())

    def read(self) -> list[str]:
        """All lines that were ever shown, without empty ones at the end."""
        os.set_blocking(self._master, False)
        while chunk := self._some():
            self._stream.feed(chunk)
        past = ["".join(line[x].data for x in range(COLUMNS)) for line in self.screen.history.top]
        lines = [line.rstrip() for line in [*past, *self.screen.display]]
        return "\n".join(lines).rstrip("\n").split("\n")

    def _some(self) -> bytes:
        try:
            return os.read(self._master, 1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._master)
        os.close(self.slave)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_the_status_changes_and_disappears(desk: Desk) -> None:
    desk.others_write("$ spice-connect vm1\n")
    desk.line.show("connecting to kvm")
    assert desk.read() == ["$ spice-connect vm1", "", "connecting to kvm"]
    desk.line.show("logging in")
    assert desk.read() == ["$ spice-connect vm1", "", "logging in"]
    desk.line.show("")
    desk.others_write("$ ")
    assert desk.read() == ["$ spice-connect vm1", "$"]


def test_a_prompt_is_never_damaged(desk: Desk) -> None:
    desk.line.show("logging in to kvm")
    desk.others_write("anne@kvm's password: ")
    desk.line.tell("Permission denied, please try again.")  # sent before the prompt, but read late
    shown = ["Permission denied, please try", "again.", "anne@kvm's password:"]
    assert desk.read() == [*shown, "logging in to kvm"]
    desk.others_write("\n")
    desk.line.show("asking for vm1")
    desk.line.show("")
    desk.others_write("$ ")
    assert desk.read()[-2:] == ["anne@kvm's password:", "$"]


def test_enter_at_a_prompt_removes_the_status(desk: Desk) -> None:
    desk.line.show("logging in to kvm")
    desk.others_write("password: \n")
    desk.line.tell("Permission denied")
    assert desk.read() == ["password:", "Permission denied", "", "logging in to kvm"]
    desk.line.show("")
    assert desk.read() == ["password:", "Permission denied"]


def test_wide_characters_take_two_cells(desk: Desk) -> None:
    desk.others_write("prompt: ")
    desk.line.tell("日" * 20)  # 40 cells
    assert [line.replace(" ", "") for line in desk.read()] == ["日" * 15, "日" * 5, "prompt:"]


def test_a_status_is_cut_to_the_terminal(desk: Desk) -> None:
    desk.line.show("x" * 100)
    assert desk.read() == ["", "x" * (COLUMNS - 1)]


def test_without_colours_it_is_not_dimmed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.line.show("a")
    desk.read()
    assert desk.screen.buffer[1][0].data == "a"
    monkeypatch.setenv("NO_COLOR", "1")
    desk.line.show("b")
    assert b"\x1b[2m" not in desk._some()


def test_a_background_process_shows_no_status(desk: Desk) -> None:
    desk.line._is_ours = lambda: False  # type: ignore[method-assign]
    desk.line.show("connecting")
    assert desk.read() == [""]
    desk.line.tell("refused")
    assert desk.read() == ["refused"]


def test_a_pipe_and_a_dumb_terminal_get_plain_lines(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert is_capable(desk.slave)
    monkeypatch.setenv("TERM", "dumb")
    assert not is_capable(desk.slave)
    reader, writer = os.pipe()
    monkeypatch.setenv("TERM", "xterm")
    assert not is_capable(writer)
    os.close(reader)
    os.close(writer)


#: Messages, statuses, and text that ssh or the user writes at the cursor.
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["tell", "show", "write", "line"]),
        st.text("abc 日ö", min_size=1, max_size=70).map(str.strip).filter(bool),
    ),
    max_size=25,
)


@given(ACTS)
def test_all_messages_are_shown_in_order_and_other_output_is_kept(
    acts: list[tuple[str, str]],
) -> None:
    desk = Desk()
    try:
        told, written, line = list[str](), list[str](), ""
        for act, text in acts:
            if act == "tell":
                desk.line.tell(text)
                told.append(text)
            elif act == "show":
                desk.line.show(f"status {text}")
            else:  # short, like a prompt: wrapping is up to the terminal
                desk.line.show("")
                line = f"<{text[:5]}>"
                desk.others_write(f"{line}\n")
                written.append(line)
        desk.line.show("")
        shown = "".join(desk.read()).replace(" ", "")
        for texts in told, written:
            at = 0
            for text in texts:
                at = shown.index(text.replace(" ", ""), at)
        assert "status" not in shown
    finally:
        desk.close()
