"""A problem's line on the terminal, with a caret below its column."""

import pytest

from spicetunnel.admin.terminal import excerpt
from spicetunnel.policy.problems import Problem


def problem(column: int, text: str) -> Problem:
    return Problem("vms.yaml", 7, column, "wrong", "mend it", text)


@pytest.mark.parametrize(
    ("column", "text", "lines"),
    [
        (5, "    when: Mo", ["     7 |     when: Mo", "       |     ^"]),
        (1, "\tvm1: {}", ["     7 |  vm1: {}", "       | ^"]),
        (13, "when", ["     7 | when", "       |     ^"]),
        (9, "user: 李明x*", ["     7 | user: 李明x*", "       |           ^"]),
        (5, "a\x1b[2Jb", ["     7 | a\\x1b[2Jb", "       |        ^"]),
        (9, "user: e\u0301*", ["     7 | user: e\u0301*", "       |        ^"]),
        (0, "  - user: ann", ["     7 |   - user: ann"]),
        (5, "", []),
    ],
)
def test_caret_is_below_its_character(column: int, text: str, lines: list[str]) -> None:
    assert excerpt(problem(column, text)) == lines


def test_long_line_is_cut_around_the_caret() -> None:
    row, caret = excerpt(problem(301, "x" * 300 + "!" + "y" * 100))
    assert len(row) == 80
    assert row[caret.index("^")] == "!"
    assert row.count("y") == 19
