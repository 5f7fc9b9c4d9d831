"""Which of the person's monitors show which displays of the VM.

remote-viewer has no option for it: it reads `monitor-mapping` from its settings file alone
(virt-viewer-app.c, virt_viewer_app_get_monitor_mapping_for_section), for full screen, and prefers
what it has saved there itself for the VM's uuid. So the viewer gets a configuration directory of
its own: links to all that is in the person's, but that file, which is a copy with our line in it.
What the viewer saves in its settings while it runs is not kept.
"""

import os

from spice_connect.errors import UsageError
from spice_connect.files import base_directory

NAME = "config"
VIEWERS = ("remote-viewer", "virt-viewer")
KEY = "monitor-mapping"
MOST = 16


def parse(text: str) -> tuple[int, ...]:
    """`2,1`: the VM's first display on monitor 2, its second one on monitor 1."""
    numbers = tuple(int(part) if part.isascii() and part.isdecimal() else 0 for part in _cut(text))
    if not all(1 <= number <= MOST for number in numbers):
        raise UsageError(
            f"no monitors: {text}", "a number for each display of the VM: --monitors 2,1"
        )
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"one monitor for two displays: {text}", "name each monitor once")
    return numbers


def _cut(text: str) -> list[str]:
    return [part.strip()[:3] for part in text.split(",")]


def config_home(directory: str, monitors: tuple[int, ...]) -> str:
    """Make it in `directory`, a private one, if it is not there; its path."""
    path, theirs = f"{directory}/{NAME}", base_directory("XDG_CONFIG_HOME", "~/.config")
    if os.path.isdir(path):
        return path
    os.makedirs(f"{path}/virt-viewer", mode=0o700)
    for name in _names(theirs):
        if name != "virt-viewer":
            os.symlink(f"{theirs}/{name}", f"{path}/{name}")
    with open(f"{path}/virt-viewer/settings", "w", encoding="utf-8") as stream:
        stream.write(settings(_read(f"{theirs}/virt-viewer/settings"), monitors))
    return path


def settings(theirs: str, monitors: tuple[int, ...]) -> str:
    """Theirs, with this mapping for every VM. A GKeyFile may have a group twice."""
    kept = [line for line in theirs.splitlines() if not line.lstrip().startswith(KEY)]
    mapping = ";".join(f"{display}:{monitor}" for display, monitor in enumerate(monitors, 1))
    return "\n".join([*kept, "[fallback]", f"{KEY}={mapping}", ""])


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
