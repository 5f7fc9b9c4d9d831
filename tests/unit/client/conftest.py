import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.client.fakes import Stage


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A safe XDG_RUNTIME_DIR. The paths of pytest's own directories are too long for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def stage(tmp_path: Path, runtime: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, runtime)
    yield stage
    stage.close()
