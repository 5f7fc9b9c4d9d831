"""What the gate says to a person."""

import pytest

from spicetunnel.gate.terminal import Terminal


def test_groups_of_directories_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Their names may have spaces."""
    person = {"user": "anne", "uid": 1001, "groups": ["domain users", "R&D"]}
    Terminal(as_json=False).person(person)
    assert capsys.readouterr().out == "user: anne\nuid: 1001\ngroups: domain users, R&D\n"
