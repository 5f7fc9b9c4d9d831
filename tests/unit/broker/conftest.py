from collections.abc import Iterator

import pytest

from tests.unit.broker.house import House, running_house


@pytest.fixture
def house() -> Iterator[House]:
    with running_house() as house:
        yield house
