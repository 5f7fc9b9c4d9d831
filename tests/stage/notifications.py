"""Desktop notifications: a session bus, and a daemon that shows them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.client import Client
    from tests.stage.process import Process

#: The colours are none of a VM's. Markup is interpreted, as on usual desktops.
DUNST = """\
[global]
    font = Monospace 14
    icon_position = off
    markup = full
    width = 700
[urgency_normal]
    background = "#00a060"
    foreground = "#ffffff"
    timeout = 0
[urgency_critical]
    background = "#c00060"
    foreground = "#ffffff"
    timeout = 0
"""
NORMAL = (0x00, 0xA0, 0x60)
CRITICAL = (0xC0, 0x00, 0x60)


class Desktop:
    """A session bus with a notification daemon, which also prints what it shows.

    `access`: the environment variables with which a program finds the bus.
    """

    def __init__(self, access: dict[str, str], daemon: Process) -> None:
        self.access = access
        self.daemon = daemon

    def wait_for(self, *words: str) -> None:
        """Wait for one notification with all `words`, as it was sent, markup included."""
        wait_until(
            lambda: any(all(word in one for word in words) for one in self._shown()),
            20,  # the broker decides again every 10 s
            lambda: f"a notification with {words}; shown so far: {self.daemon.out()}",
        )

    def _shown(self) -> list[str]:
        return self.daemon.out().split("\n}\n")


@contextlib.contextmanager
def notifications(pc: Client) -> Iterator[Desktop]:
    config = pc.home("dunstrc")
    config.write_text(DUNST)
    config.chmod(0o644)
    address = f"unix:path={pc.home('bus')}"
    access = {"DBUS_SESSION_BUS_ADDRESS": address}
    bus = ("dbus-daemon", "--session", "--nofork", "--print-address", "--address", address)
    kept = {"XDG_RUNTIME_DIR": str(pc.person.home)}  # it would leave a directory in the real one
    with pc.run(*bus, env=kept) as running:
        running.says(address)
        with pc.run("dunst", "-print", "-conf", str(config), env=access) as daemon:
            yield Desktop(access, daemon)
