import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.broker.house import House


@pytest.fixture
def house() -> Iterator[House]:
    # Not tmp_path: its names are long, and a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        house = House(Path(directory))
        try:
            house.start()
            yield house
        finally:
            house.close()
