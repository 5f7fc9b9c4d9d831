"""How the VM is to be seen: by which viewer, with which arguments of the person's own."""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

from spice_connect.errors import ConfigError, UsageError
from spice_connect.files import base_directory
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.ui.terminal import encodable

#: Replaced in a viewer's arguments, each of which stays one argument.
PLACE = re.compile(r"\{(file|socket|port|title)\}")

CONFIG_DIRECTORY = "config"
WITH_MONITORS = ("remote-viewer", "virt-viewer")
MAPPING_KEY = "monitor-mapping"
MOST_MONITORS = 16


class ViewerCommand(NamedTuple):
    """`keys`: more of the connection file, as remote-viewer(1) has them.

    `monitors`: of the VM's displays, in their order; none: as the viewer likes.
    """

    template: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    keys: Mapping[str, str] = MappingProxyType({})
    monitors: tuple[int, ...] = ()

    def in_full_screen(self) -> "ViewerCommand":
        if not self._reads_file():
            raise UsageError(
                f"--full-screen is not for {self.template[0]}, which reads no connection file",
                "give it its own option, behind the VM: spice-connect VM -- OPTION",
            )
        return self._replace(keys={**self.keys, "fullscreen": "1"})

    def on_monitors(self, monitors: tuple[int, ...]) -> "ViewerCommand":
        """In full screen: only there do they count."""
        if not self._reads_file() or os.path.basename(self.template[0]) not in WITH_MONITORS:
            raise UsageError(
                f"--monitors is for {' and '.join(WITH_MONITORS)}, not for {self.template[0]}",
                "give it its own option, behind the VM: spice-connect VM -- OPTION",
            )
        return self.in_full_screen()._replace(monitors=monitors)

    def environment(self, directory: str) -> dict[str, str] | None:
        """The viewer's; None: ours. `directory`: a private one, for what it takes."""
        if not self.monitors:
            return None
        return {**os.environ, "XDG_CONFIG_HOME": config_home(directory, self.monitors)}

    def by_port(self, *, port: bool) -> Self:
        """At a port and no socket, or the other way round: the command must not ask for the one
        that is not there.
        """
        missing = "socket" if port else "port"
        if missing in self._places():
            raise ConfigError(
                f"viewer: there is no {{{missing}}}",
                "with viewer-port = true there is {port}, else {socket}",
            )
        return self

    def argv(self, *, file: str, local_end: LocalEnd, title: str) -> list[str]:
        """Without any place in the command, the connection file is the last argument."""
        # No option, even where the title stands alone; it is somebody else's text.
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
    """`2,1`: the VM's first display on monitor 2, its second one on monitor 1."""
    numbers = tuple(int(part) if part.isascii() and part.isdecimal() else 0 for part in _cut(text))
    if not all(1 <= number <= MOST_MONITORS for number in numbers):
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
    path, theirs = f"{directory}/{CONFIG_DIRECTORY}", base_directory("XDG_CONFIG_HOME", "~/.config")
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
