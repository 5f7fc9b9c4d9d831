"""Broken maps, and every problem reported for each, word for word."""

import pytest

from tests.unit.policy.brokenmaps import BrokenMap, broken_maps
from tests.unit.policy.saying import said_of


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in broken_maps()])
def test_every_problem_is_reported(case: BrokenMap) -> None:
    assert said_of(case.text.encode()) == case.said
