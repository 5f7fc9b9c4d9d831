"""Installs the project as an admin does: its wheel, in a root-owned environment for all users.

The checkout's .venv will not do: it belongs to a developer, may lie in a home that nobody else can
enter, and is editable. Tests of privileges must not depend on that.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from pathlib import Path

from tests.stage.command import run, uninterrupted

PREFIX = Path("/opt/spicetunnel-stage")
VENV = PREFIX / "venv"
#: The versions for which the dependencies were installed; they are downloaded only once.
STAMP = VENV / "made-for"

#: Not `python3`: the first one in root's PATH may be a pyenv's, in a home with mode 0700.
PYTHON = "/usr/bin/python3"


def install(checkout: Path) -> Path:
    """Install the checkout as it is now; returns the directory of its programs."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    required = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted = [*required, *project["project"]["optional-dependencies"]["asyncssh"]]
    stamp = "\n".join([run(PYTHON, "--version").strip(), *wanted])
    if not STAMP.is_file() or STAMP.read_text() != stamp:
        _install_dependencies(wanted)
    # If this is interrupted, no stamp is left, and the next install starts from nothing.
    STAMP.unlink(missing_ok=True)
    _install_wheel(checkout)
    STAMP.write_text(stamp)
    # A wheel may contain files that other users cannot read.
    run("chmod", "-R", "go+rX,go-w", str(PREFIX))
    return VENV / "bin"


def uninstall() -> None:
    with uninterrupted():
        shutil.rmtree(PREFIX, ignore_errors=True)


def _install_dependencies(wanted: list[str]) -> None:
    uninstall()
    run(PYTHON, "-m", "venv", str(VENV))
    _pip("install", *wanted)


def _install_wheel(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        _pip("wheel", "--no-deps", "--no-build-isolation", "-w", directory, str(checkout))
        (wheel,) = Path(directory).glob("*.whl")
        _pip("install", "--force-reinstall", "--no-deps", str(wheel))


def _pip(*arguments: str) -> None:
    run(str(VENV / "bin" / "python"), "-I", "-m", "pip", "-q", *arguments)
