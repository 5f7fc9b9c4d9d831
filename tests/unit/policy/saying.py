"""What a map's reader is told, as text to compare with."""

import pytest

from spicetunnel.policy.problems import MapError, Problem
from spicetunnel.policy.vmmap import parse_map


def problems_of(data: bytes) -> list[Problem]:
    with pytest.raises(MapError) as refused:
        parse_map(data, "vms.yaml")
    return refused.value.problems


def said_of(data: bytes) -> list[str]:
    """Every problem of this map and its hint, a line each."""
    return [
        line
        for problem in problems_of(data)
        for line in (str(problem), problem.hint and f"hint: {problem.hint}")
        if line
    ]
