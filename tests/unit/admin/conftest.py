import grp
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.admin.editors import editor, path
from tests.unit.admin.office import office
from tests.unit.broker.house import House

__all__ = ["editor", "office", "path"]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    # Not tmp_path: its names are long, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def house(run_dir: Path) -> Iterator[House]:
    """A real broker that takes us for an admin, as root or by our group."""
    house = House(run_dir)
    try:
        house.start("--admin-group", grp.getgrgid(os.getgid()).gr_name)
        yield house
    finally:
        house.close()
