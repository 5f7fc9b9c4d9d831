"""The pure parts of the menu. tests/system/test_pick.py runs it in a real terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth
from spice_connect.vms.pick import Columns, fit
from spice_connect.vms.row import Row

TEXTS = st.text("abc 日ö💻", max_size=30)
ROWS = st.lists(
    st.builds(
        Row, TEXTS, st.sampled_from(["kvm", "lab"]), TEXTS, TEXTS, st.just({"state": "free"})
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 4, "abc…"),
        ("日本語", 4, "日…"),
        ("日本語", 5, "日本…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 2, "  "),
    ],
)
def test_a_text_is_padded_or_shortened(text: str, width: int, shown: str) -> None:
    assert fit(text, width) == shown


@given(TEXTS, st.integers(0, 40))
def test_no_text_is_wider_than_its_column(text: str, width: int) -> None:
    assert get_cwidth(fit(text, width)) <= width


@given(ROWS, st.integers(10, 120))
def test_no_line_is_wider_than_the_terminal(rows: list[Row], columns: int) -> None:
    for row in rows:
        line = Columns(rows, columns).line(row)
        assert get_cwidth(line) < columns
        assert "\n" not in line


def test_hosts_are_shown_if_there_are_several() -> None:
    one = Row("vm1", "kvm", "T", "free", {"state": "free"})
    other = Row("vm22", "lab", "", "off", {"state": "off"})
    assert Columns([one], 40).line(one) == "vm1  T  free"
    both = Columns([one, other], 40)
    assert [both.line(one), both.line(other)] == ["vm1   kvm  T  free", "vm22  lab     off"]
