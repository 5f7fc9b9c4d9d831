"""Broken maps, and all that is said about each, to the letter.

The cases stand in broken/*.txt: a name after '==', the map, and what is said, each line after '->'.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.policy.saying import said_of

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.txt"))


def cases() -> Iterator[Any]:
    for file in BROKEN:
        _, *blocks = f"\n{file.read_text()}".split("\n== ")
        for block in blocks:
            name, *lines = block.rstrip("\n").split("\n")
            said = [line.removeprefix("-> ") for line in lines if line.startswith("-> ")]
            text = "".join(f"{line}\n" for line in lines[: len(lines) - len(said)])
            yield pytest.param(text, said, id=f"{file.stem}: {name}")


@pytest.mark.parametrize(("text", "said"), list(cases()))
def test_every_problem_is_named(text: str, said: list[str]) -> None:
    assert said_of(text.encode()) == said
