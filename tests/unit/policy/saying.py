"""The problems that a map's reader reports, as text to compare."""

import pytest

from spicetunnel.policy.problems import MapError, Problem
from spicetunnel.policy.vmmap import parse_map


def problems_of(data: bytes) -> list[Problem]:
    with pytest.raises(MapError) as refused:
        parse_map(data, "vms.yaml")
    return refused.value.problems


def said_of(data: bytes) -> list[str]:
    """A line for each problem of this map, and one for each hint."""
    return [
        line
        for problem in problems_of(data)
        for line in (str(problem), problem.hint and f"hint: {problem.hint}")
        if line
    ]
