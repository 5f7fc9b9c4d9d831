"""How the VM is to be seen: by which viewer, with which arguments of the person's own."""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

from spice_connect.errors import ConfigError, UsageError
from spice_connect.tunnel.nearend import NearEnd
from spice_connect.ui.terminal import encodable
from spice_connect.viewer.monitors import VIEWERS, config_home

#: Replaced in a viewer's arguments, each of which stays one argument.
PLACE = re.compile(r"\{(file|socket|port|title)\}")


class Look(NamedTuple):
    """`keys`: more of the connection file, as remote-viewer(1) has them.

    `monitors`: of the VM's displays, in their order; none: as the viewer likes.
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    keys: Mapping[str, str] = MappingProxyType({})
    monitors: tuple[int, ...] = ()

    def in_full_screen(self) -> "Look":
        if not self._reads_file():
            raise UsageError(
                f"--full-screen is not for {self.command[0]}, which reads no connection file",
                "give it its own option, behind the VM: spice-connect VM -- OPTION",
            )
        return self._replace(keys={**self.keys, "fullscreen": "1"})

    def on_monitors(self, monitors: tuple[int, ...]) -> "Look":
        """In full screen: only there do they count."""
        if not self._reads_file() or os.path.basename(self.command[0]) not in VIEWERS:
            raise UsageError(
                f"--monitors is for {' and '.join(VIEWERS)}, not for {self.command[0]}",
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

    def argv(self, *, file: str, near: NearEnd, title: str) -> list[str]:
        """Without any place in the command, the connection file is the last argument."""
        # No option, even where the title stands alone; it is somebody else's text.
        places = {"file": file, "socket": near.path, "port": str(near.port)}
        places["title"] = encodable(title.lstrip("-"))
        if not self._places():
            return [*self.command, *self.arguments, file]
        filled = [PLACE.sub(lambda place: places[place[1]], part) for part in self.command]
        return [*filled, *self.arguments]

    def _places(self) -> set[str]:
        return {place for part in self.command for place in PLACE.findall(part)}

    def _reads_file(self) -> bool:
        return not self._places() or "file" in self._places()
