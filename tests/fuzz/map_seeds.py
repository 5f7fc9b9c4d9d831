"""Writes the seeds of fuzz_map into a folder: the broken maps of the unit tests, a file each."""

import sys
from pathlib import Path

from tests.unit.policy.brokenmaps import broken_maps


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(broken_maps()):
        (folder / f"{number:03}").write_text(each.text)


if __name__ == "__main__":
    main()
