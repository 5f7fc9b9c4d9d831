import os
import select

import pytest
from spice_connect.tunnel.stderr import LAST_WORDS, Stderr


class Mouth:
    """What ssh writes, and what the person is shown."""

    def __init__(self) -> None:
        self.shown = list[bytes]()
        self.stderr = Stderr(self.shown.append)
        self._fd = os.dup(self.stderr.writer)
        self.stderr.started()

    def say(self, text: bytes, *, hold: bool) -> list[str] | None:
        os.write(self._fd, text)
        return self.listen(hold=hold)

    def listen(self, *, hold: bool) -> list[str] | None:
        select.select([self.stderr], [], [], 5)
        return self.stderr.listen(hold=hold)

    def end(self) -> None:
        os.close(self._fd)


@pytest.fixture
def mouth() -> Mouth:
    return Mouth()


def test_before_the_login_all_is_passed_on_as_it_comes(mouth: Mouth) -> None:
    assert mouth.say(b"Confirm user presence", hold=False) == []
    assert mouth.say(b"\x1b[31m\xff for key\n", hold=False) == []
    assert mouth.shown == [b"Confirm user presence", b"\x1b[31m\xff for key\n"]
    mouth.end()
    mouth.stderr.close()


def test_after_the_login_lines_are_held_back(mouth: Mouth) -> None:
    assert mouth.say(b"bash: open: not fo", hold=True) == []
    assert mouth.say(b"und\nand m", hold=True) == ["bash: open: not found"]
    assert mouth.shown == []
    mouth.end()
    assert mouth.listen(hold=True) is None
    assert mouth.stderr.rest() == "and m"
    assert mouth.stderr.rest() == ""
    mouth.stderr.close()


def test_what_is_kept_is_bounded(mouth: Mouth) -> None:
    for _ in range(40):
        mouth.say(b"x" * 1000, hold=True)
    assert len(mouth.stderr.text()) == LAST_WORDS
    assert len(mouth.stderr.rest()) == LAST_WORDS
    mouth.end()
    mouth.stderr.close()


def test_the_end_of_a_terminal_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading then fails with EIO, as nothing is left that could write."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    mouth = Mouth()
    assert os.isatty(2)
    assert mouth.say(b"a\nb\n", hold=True) == ["a", "b"]
    mouth.end()
    assert mouth.listen(hold=True) is None
    mouth.stderr.close()
