"""Broken maps, and every problem reported for each, word for word."""

import pytest

from tests.unit.policy.brokenmaps import BrokenMap, broken_maps
from tests.unit.policy.saying import problems_of, said_of


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in broken_maps()])
def test_every_problem_is_reported(case: BrokenMap) -> None:
    assert said_of(case.text.encode()) == case.said


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in broken_maps()])
def test_every_problem_has_a_hint_and_its_line(case: BrokenMap) -> None:
    lines = [*case.text.split("\n"), ""]
    for problem in problems_of(case.text.encode()):
        assert problem.hint
        assert problem.text == lines[problem.line - 1].rstrip()
