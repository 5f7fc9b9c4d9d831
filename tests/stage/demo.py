"""`script/demo`: opens a VM once with real programs, and explains each step."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
import time
from typing import TYPE_CHECKING

from tests.stage.display import lend_display
from tests.stage.machine import LOGS
from tests.stage.screen import VirtualScreen
from tests.stage.stage import CHECKOUT, MAP_FILE, Stage
from tests.stage.vm import SOCKETS
from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from tests.stage.client import Client
    from tests.stage.process import Process
    from tests.stage.screen import Screen
    from tests.stage.vm import Vm

OUT = CHECKOUT / "out"
LOG_COPY = OUT / "demo-log"
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds that the window stays open on a real display.
SHOW = 8

TITLE = "Windows 10, book-keeping"

MAP = f"""\
vms:
  vm1:
    title: {TITLE}
    socket: {SOCKETS}/vm1.sock
    allow:
      - user: st-alice
  vm2:
    title: confidential report
    socket: {SOCKETS}/vm2.sock
    allow:
      - user: st-bob
"""

WELCOME = """\
spicetunnel: one user, two VMs on one KVM host, and access to one of them.
All programs are the real ones: sshd, QEMU, broker, relay, remote-viewer.
Ctrl-C ends the demo at any time; its users, processes and files are removed.
"""


class Ended(BaseException):
    """A signal asked us to end. The `with` blocks clean up while it passes through them."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> int:
    for number in ENDS:
        signal.signal(number, _end)
    print(WELCOME, flush=True)
    shutil.rmtree(LOG_COPY, ignore_errors=True)
    try:
        with Stage(MAP, keep_install=False) as stage:
            try:
                play(stage)
            finally:
                _ignore_signals()
                step("Cleaning up.")
                keep_logs()
    except Ended as ended:
        return ended.exit_code
    except StageError as error:
        say(f"The demo failed: {error}", f"Logs: {LOG_COPY}")
        return 1
    say(f"Done. The logs, with the audit log in broker.err: {LOG_COPY}")
    return 0


def play(stage: Stage) -> None:
    step("Installing the project where every user can run it.")
    say(f"programs: {stage.programs}", f"logs:     {LOGS}")
    vm1, vm2 = stage.vm("vm1"), stage.vm("vm2")
    say(f"VMs:      QEMU, processes {vm1.pid} and {vm2.pid}")
    say(f"sshd:     127.0.0.1:{stage.sshd.port}, process {stage.sshd.pid}")
    step(f"The admin wrote this VM map ({MAP_FILE}):")
    quote(MAP)
    say(f"broker:   process {stage.broker.pid}, as {stage.broker.service.name}")
    say(f"relay:    process {stage.relay.pid}, as {stage.relay.service.name}")
    screen = choose_screen(stage)
    pc = stage.client(stage.person("alice")).at(screen)
    show_allowed(pc, vm1, screen)
    show_refused(pc)
    show_list(pc)


def choose_screen(stage: Stage) -> Screen:
    screen = lend_display(stage.person("alice"))
    if screen:
        say(f"screen:   yours; the viewer stays open for {SHOW} seconds")
        return screen
    say("screen:   Xvfb, because there is no display that st-alice may use")
    return stage.screen


def show_allowed(pc: Client, vm1: Vm, screen: Screen) -> None:
    step("st-alice, who may use vm1, types:")
    with typed(pc, "vm1") as client:
        window = client.until(lambda: find_window(screen), 40, "the viewer's window")
        client.until(
            lambda: screen.colour_share(vm1.colour.rgb, window) > 0.5, 20, "the screen of vm1"
        )
        quote(client.out() + client.err())
        say(f"The window {screen.windows()[window]!r} shows the VM's screen.")
        say(f"Screenshot: {take_picture(screen, window)}")
        time.sleep(0 if isinstance(screen, VirtualScreen) else SHOW)
    vm1.wait_for_no_client()
    say("The viewer is closed, and nothing is left of the session.")


def take_picture(screen: Screen, window: str) -> Path:
    OUT.mkdir(exist_ok=True)
    picture = screen.screenshot(OUT / "demo-vm1.png", window)
    hand_over(OUT, picture)
    return picture


def find_window(screen: Screen) -> str:
    return next((window for window, title in screen.windows().items() if TITLE in title), "")


def show_refused(pc: Client) -> None:
    step("st-alice tries vm2, which only st-bob may use:")
    with typed(pc, "vm2") as client:
        code = client.wait(30)
        quote(client.out() + client.err())
    say(f"exit code {code}")
    if code != os.EX_NOPERM:
        raise StageError(f"expected exit code {os.EX_NOPERM} for vm2, got {code}")


def show_list(pc: Client) -> None:
    step("st-alice lists the VMs that she may use:")
    with typed(pc) as client:
        code = client.wait(30)
        quote(client.out() + client.err())
    if code:
        raise StageError(f"the list failed with exit code {code}")


def typed(pc: Client, *arguments: str) -> Process:
    quote(" ".join(["$ spice-connect", *arguments]))
    return pc.spice_connect(*arguments)


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(*lines: str) -> None:
    for line in lines:
        print(f"  {line}", flush=True)


def quote(text: str) -> None:
    """Print a program's output or a file's text, indented."""
    if text:
        print(textwrap.indent(text.rstrip(), "    | "), flush=True)


def keep_logs() -> None:
    shutil.copytree(LOGS, LOG_COPY)
    hand_over(OUT, LOG_COPY, *LOG_COPY.iterdir())


def hand_over(*paths: Path) -> None:
    """Under sudo, give the files in the checkout to the user who called sudo."""
    for path in paths:
        os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


def _end(number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Ended(number)


def _ignore_signals() -> None:
    """A second Ctrl-C must not interrupt the clean-up."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
