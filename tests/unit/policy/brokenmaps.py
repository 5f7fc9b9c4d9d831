"""The broken maps of broken/*.txt: a name after `==`, the map, and after `->` what is reported."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILES = sorted((Path(__file__).parent / "broken").glob("*.txt"))


class BrokenMap(NamedTuple):
    """`said` is what is reported: a line for each problem, and one for each hint."""

    name: str
    text: str
    said: list[str]


def broken_maps() -> Iterator[BrokenMap]:
    for file in FILES:
        _, *blocks = f"\n{file.read_text()}".split("\n== ")
        for block in blocks:
            name, *lines = block.rstrip("\n").split("\n")
            said = [line.removeprefix("-> ") for line in lines if line.startswith("-> ")]
            text = "".join(f"{line}\n" for line in lines[: len(lines) - len(said)])
            yield BrokenMap(f"{file.stem}: {name}", text, said)
