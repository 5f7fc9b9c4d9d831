import grp
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.admin.editors import editor, path
from tests.unit.admin.office import office
from tests.unit.broker.server import Server

__all__ = ["editor", "office", "path"]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    # Not tmp_path: its names are long, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def server(run_dir: Path) -> Iterator[Server]:
    """A real broker that takes us for an admin, as root or by our group."""
    server = Server(run_dir)
    try:
        server.start("--admin-group", grp.getgrgid(os.getgid()).gr_name)
        yield server
    finally:
        server.close()
