"""X displays, virtual or real: their windows, pictures and keyboard."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.stage.machine import RUN
from tests.stage.picture import Picture
from tests.stage.process import ENVIRONMENT, Process
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from tests.stage.picture import Rgb


class Screen:
    """A display: its picture, its windows' titles, and typing.

    `access`: the environment variables with which a program finds the display.
    """

    def __init__(self, access: Mapping[str, str]) -> None:
        self.access = dict(access)

    def windows(self) -> dict[str, str]:
        """The visible windows that have a title: window id -> title."""
        ids = self._run("xdotool", "search", "--onlyvisible", "--name", ".").split()
        titles = {window: self._run("xdotool", "getwindowname", window).strip() for window in ids}
        return {window: title for window, title in titles.items() if title}

    def wait_for_window_manager(self) -> None:
        """Wait for an EWMH window manager. Without one, no window can fill the screen."""
        wait_until(
            lambda: "window id" in self._run("xprop", "-root", "_NET_SUPPORTING_WM_CHECK"),
            10,
            "a window manager",
        )

    def title(self, window: str) -> str:
        """The exact title, trailing spaces included."""
        return self._run("xdotool", "getwindowname", window).removesuffix("\n")

    def wait_for_window(self, title_part: str, deadline: float = 20) -> str:
        """Wait for a window with `title_part` in its title; returns the id of the first one."""
        return wait_until(
            lambda: next((w for w, title in self.windows().items() if title_part in title), ""),
            deadline,
            lambda: f"a window titled ...{title_part}..., not {list(self.windows().values())}",
        )

    def look(self, window: str = "root") -> Picture:
        return Picture.from_ppm(self._import("ppm:-", window))

    def screenshot(self, path: Path, window: str = "root") -> Path:
        """Save a PNG at `path`; returns `path`."""
        path.write_bytes(self._import("png:-", window))
        return path

    def wait_for_steady(self, window: str = "root") -> None:
        """Wait until two pictures in a row are alike: the window has been drawn."""
        seen: list[Picture] = []

        def steady() -> bool:
            seen.append(self.look(window))
            return len(seen) > 1 and seen[-1] == seen[-2]

        wait_until(steady, 10, "a steady picture")

    def colour_share(self, rgb: Rgb, window: str = "root") -> float:
        return self.look(window).colour_share(rgb)

    def wait_for_colour(self, rgb: Rgb, deadline: float = 20, at_least: float = 0.25) -> None:
        """Wait until this share of the screen shows `rgb`. A VM's 720x400 are 0.37 of 1024x768."""
        wait_until(
            lambda: self.colour_share(rgb) >= at_least,
            deadline,
            f"{rgb} on {at_least:.0%} of the screen",
        )

    def type(self, text: str, window: str) -> None:
        """Type `text`, with the pointer in the middle of `window`."""
        self._run("xdotool", "mousemove", "--window", window, "--polar", "0", "0")
        self._run("xdotool", "type", "--delay", "30", text)

    def press(self, keys: str, window: str) -> None:
        """Press a combination such as `ctrl+alt+z`, with the pointer in the middle of `window`."""
        self._run("xdotool", "mousemove", "--window", window, "--polar", "0", "0")
        self._run("xdotool", "key", keys)

    def raise_window(self, window: str) -> None:
        """Put it on top, so that no other window covers it in a picture."""
        self._run("xdotool", "windowraise", window)

    def move_window(self, window: str, x: int, y: int) -> None:
        self._run("xdotool", "windowmove", "--sync", window, str(x), str(y))

    def resize_window(self, window: str, width: int, height: int) -> None:
        self._run("xdotool", "windowsize", "--sync", window, str(width), str(height))

    def close_window(self, window: str) -> None:
        """Send WM_DELETE_WINDOW, as a window manager's close button does."""
        self._run("xdotool", "windowclose", window)

    def _import(self, form: str, window: str) -> bytes:
        argv = ["/usr/bin/import", "-silent", "-window", window, "-depth", "8", form]
        return subprocess.run(argv, env=self._env(), check=True, stdout=subprocess.PIPE).stdout

    def _run(self, *argv: str) -> str:
        # Not an error: a window may close meanwhile, and a search may find none.
        done = subprocess.run(
            argv, env=self._env(), check=False, text=True, stdout=-1, stderr=subprocess.DEVNULL
        )
        return done.stdout

    def _env(self) -> dict[str, str]:
        return {**ENVIRONMENT, **self.access}


class VirtualScreen(Screen):
    """A Screen on an Xvfb of our own, at the first free display number."""

    COMMAND: tuple[str, ...] = ("Xvfb", "-screen", "0", "1024x768x24")

    def __init__(self, log: Path) -> None:
        number, number_in = os.pipe()
        argv = [*self.COMMAND, "-displayfd", str(number_in), "-nolisten", "tcp", "-noreset"]
        with os.fdopen(number) as reader:
            try:
                self.process = Process(argv, log, pass_fds=[number_in])
            finally:
                os.close(number_in)
            # It writes the number when it is ready. If it dies, the pipe ends.
            display = reader.readline().strip()
        super().__init__({"DISPLAY": f":{display}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stop()


XORG_CONFIG = """\
Section "ServerFlags"
    Option "AutoAddDevices" "false"
    Option "AutoAddGPU" "false"
EndSection
Section "Device"
    Identifier "none"
    Driver "dummy"
    VideoRam 16000
EndSection
Section "Monitor"
    Identifier "any"
    HorizSync 5-1000
    VertRefresh 5-200
EndSection
Section "Screen"
    Identifier "both"
    Device "none"
    Monitor "any"
    DefaultDepth 24
    SubSection "Display"
        Modes "800x600"
        Virtual 1600 600
    EndSubSection
EndSection
"""


class TwoMonitors(VirtualScreen):
    """The real Xorg with two virtual monitors side by side. Xvfb has only one."""

    CONFIG = RUN / "xorg.conf"
    COMMAND = ("/usr/lib/xorg/Xorg", "-config", str(CONFIG), "-sharevts", "-novtswitch")

    def __init__(self, log: Path) -> None:
        self.CONFIG.write_text(XORG_CONFIG)
        super().__init__(log)
        self._run("xrandr", "--addmode", "DUMMY1", "800x600")
        self._run("xrandr", "--output", "DUMMY1", "--mode", "800x600", "--right-of", "DUMMY0")
        self._run("xrandr")  # before the first query, programs see only the first one
