"""The entries for people need nothing but a POSIX shell to start."""

import os
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
SCRIPTS = [path for path in (CHECKOUT / "script").iterdir() if not path.suffix]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_posix_and_may_be_run(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    subprocess.run(["/bin/sh", "-n", script], check=True)
