"""The command line of the viewer, and on which monitors it shows the displays of the VM.

remote-viewer has no option for monitors: it reads `monitor-mapping` from its settings file only
(virt-viewer-app.c, virt_viewer_app_get_monitor_mapping_for_section), for full screen, and prefers
what it has saved there itself for the uuid of the VM. So the viewer gets its own configuration
directory: links to everything in the user's, and a copy of that file with our line. What the viewer
saves in its settings is lost.
"""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

from spice_connect.errors import ConfigError, UsageError, at
from spice_connect.files import base_directory
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.ui.terminal import encodable

#: Replaced in the words of the viewer's command; no word is split.
PLACE = re.compile(r"\{(file|socket|port|title)\}")

CONFIG_DIRECTORY = "config"
WITH_MONITORS = ("remote-viewer", "virt-viewer")
MAPPING_KEY = "monitor-mapping"
MOST_MONITORS = 16


class ViewerCommand(NamedTuple):
    """`template`: the configured command. `arguments`: from the command line.

    `keys`: more keys of the connection file, see remote-viewer(1). `monitors`: the monitor of each
    display of the VM; if empty, the viewer decides.
    """

    template: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    keys: Mapping[str, str] = MappingProxyType({})
    monitors: tuple[int, ...] = ()

    def in_full_screen(self) -> "ViewerCommand":
        """The same command in full screen. Raises UsageError if the viewer cannot."""
        if not self._reads_file():
            raise UsageError(
                f"--full-screen is not for {self.template[0]}, which reads no connection file",
                "give it its own option, after the VM: spice-connect VM -- OPTION",
            )
        return self._replace(keys={**self.keys, "fullscreen": "1"})

    def on_monitors(self, monitors: tuple[int, ...]) -> "ViewerCommand":
        """The same command in full screen on these monitors. Raises UsageError if it cannot."""
        if not self._reads_file() or os.path.basename(self.template[0]) not in WITH_MONITORS:
            raise UsageError(
                f"--monitors is for {' and '.join(WITH_MONITORS)}, not for {self.template[0]}",
                "give it its own option, after the VM: spice-connect VM -- OPTION",
            )
        return self.in_full_screen()._replace(monitors=monitors)

    def environment(self, directory: str) -> dict[str, str] | None:
        """The viewer's environment; None for ours. `directory`: the private one.

        Raises OSError.
        """
        if not self.monitors:
            return None
        return {**os.environ, "XDG_CONFIG_HOME": config_home(directory, self.monitors)}

    def by_port(self, *, port: bool) -> Self:
        """The same command. Raises ConfigError if it needs {socket} with a port, or the reverse."""
        missing = "socket" if port else "port"
        if missing in self._places():
            raise ConfigError(
                f"viewer: there is no {{{missing}}}",
                "with viewer-port = true there is {port}, else {socket}",
            )
        return self

    def argv(self, *, file: str, local_end: LocalEnd, title: str) -> list[str]:
        """The words to run. The connection file is the last one if the template has no {...}."""
        # The server wrote the title: it must not be an option, even as a word of its own.
        places = {"file": file, "socket": local_end.path, "port": str(local_end.port)}
        places["title"] = encodable(title.lstrip("-"))
        if not self._places():
            return [*self.template, *self.arguments, file]
        filled = [PLACE.sub(lambda place: places[place[1]], part) for part in self.template]
        return [*filled, *self.arguments]

    def _places(self) -> set[str]:
        return {place for part in self.template for place in PLACE.findall(part)}

    def _reads_file(self) -> bool:
        return not self._places() or "file" in self._places()


def parse_monitors(text: str) -> tuple[int, ...]:
    """`2,1`: the first display of the VM on monitor 2, the second on monitor 1.

    Raises UsageError.
    """
    numbers = tuple(int(part) if part.isascii() and part.isdecimal() else 0 for part in _cut(text))
    if not all(1 <= number <= MOST_MONITORS for number in numbers):
        raise UsageError(
            f"not a list of monitors: {text}", "a number for each display of the VM: --monitors 2,1"
        )
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"one monitor for two displays: {text}", "name each monitor once")
    return numbers


def _cut(text: str) -> list[str]:
    return [part.strip()[:3] for part in text.split(",")]


def config_home(directory: str, monitors: tuple[int, ...]) -> str:
    """Make the viewer's configuration directory in `directory`, unless it is there; its path."""
    path, theirs = f"{directory}/{CONFIG_DIRECTORY}", base_directory("XDG_CONFIG_HOME", "~/.config")
    if os.path.isdir(path):
        return path
    os.makedirs(f"{path}/virt-viewer", mode=0o700)
    for name in _names(theirs):
        if name != "virt-viewer":
            os.symlink(f"{theirs}/{name}", f"{path}/{name}")
    file = f"{path}/virt-viewer/settings"
    with at(file), open(file, "w", encoding="utf-8") as stream:
        stream.write(settings(_read(f"{theirs}/virt-viewer/settings"), monitors))
    return path


def settings(theirs: str, monitors: tuple[int, ...]) -> str:
    """The user's settings, with this mapping for all VMs. A GKeyFile may repeat a group."""
    kept = [line for line in theirs.splitlines() if not line.lstrip().startswith(MAPPING_KEY)]
    mapping = ";".join(f"{display}:{monitor}" for display, monitor in enumerate(monitors, 1))
    return "\n".join([*kept, "[fallback]", f"{MAPPING_KEY}={mapping}", ""])


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
