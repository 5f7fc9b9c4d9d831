"""A real VM: QEMU with a SPICE socket that only the broker's group can use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.stage.bootsector import Colour, boot_sector
from tests.stage.machine import LOGS, RUN
from tests.stage.picture import Picture
from tests.stage.process import Process
from tests.stage.qmp import qmp
from tests.stage.sockets import is_listening
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from tests.stage.people import Person

#: The SPICE sockets, one per VM; see `open_socket_directory`.
SOCKETS = RUN / "vms"
#: The monitors and boot images, for QEMU's user only.
BACKSTAGE = RUN / "qemu"

#: No KVM is needed: the guest is a boot sector that waits for keys.
MACHINE = ("-nodefaults", "-accel", "tcg", "-m", "32", "-nic", "none")
DISPLAY = ("-display", "none", "-vga", "qxl")

#: With these, a viewer opens seven channels: main, display, inputs, cursor, playback, record and
#: usbredir. The main channel has an agent, which carries clipboard and files.
DEVICES = (
    *("-audiodev", "spice,id=sound"),
    *("-device", "intel-hda", "-device", "hda-duplex,audiodev=sound"),
    *("-device", "qemu-xhci", "-chardev", "spicevmc,id=usb,name=usbredir"),
    *("-device", "usb-redir,chardev=usb"),
    *("-device", "virtio-serial", "-chardev", "spicevmc,id=agent,name=vdagent"),
    *("-device", "virtserialport,chardev=agent,name=com.redhat.spice.0"),
)


def open_socket_directory(qemu: Person, broker: Person) -> None:
    """Make SOCKETS, a setgid directory: each socket that QEMU binds there gets the broker's group.
    QEMU's umask of 002 keeps the group's write permission, which connect(2) needs."""
    qemu.directory(BACKSTAGE)
    SOCKETS.mkdir()
    os.chown(SOCKETS, qemu.uid, broker.gid)
    SOCKETS.chmod(0o2710)


class Vm:
    """A VM named `name`, whose whole screen shows `colour`; not running until `start`."""

    def __init__(
        self,
        name: str,
        colour: Colour,
        qemu: Person,
        extra: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        ticket: str = "disable-ticketing=on",
    ) -> None:
        self.name = name
        self.env = env
        self.ticket = ticket
        self.colour = colour
        self.socket = SOCKETS / f"{name}.sock"
        self.monitor = BACKSTAGE / f"{name}.qmp"
        self.extra = list(extra)
        self._qemu = qemu
        self._process: Process | None = None

    @property
    def devices(self) -> Sequence[str]:
        """QEMU's options, beside those of every VM."""
        return DEVICES

    @property
    def process(self) -> Process:
        if self._process is None:
            raise StageError(f"{self.name} was never started")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    def start(self) -> Self:
        """Returns when a viewer can connect and the guest has painted its screen."""
        if self.alive():
            return self
        self.socket.unlink(missing_ok=True)
        self.monitor.unlink(missing_ok=True)
        argv = ["qemu-system-x86_64", "-name", self.name, *MACHINE, *DISPLAY, *self.devices]
        argv += ["-drive", f"file={self._boot_image()},format=raw,if=floppy,readonly=on"]
        argv += ["-spice", f"unix=on,addr={self.socket},{self.ticket}"]
        argv += ["-qmp", f"unix:{self.monitor},server=on,wait=off", *self.extra]
        self._process = Process(
            argv, LOGS / self.name, person=self._qemu, umask=0o002, env=self.env
        )
        self._process.until(self._listening, 20, f"{self.name} to listen")
        self._process.until(self._painted, 20, f"{self.name} to boot")
        return self

    def qmp(self, command: str, **arguments: object) -> object:
        return qmp(self.monitor, command, **arguments)

    def look(self) -> Picture:
        """The guest's screen, as QEMU sees it, without any viewer."""
        path = BACKSTAGE / f"{self.name}.ppm"
        self.qmp("screendump", filename=str(path))
        return Picture.from_ppm(path.read_bytes())

    def spice_clients(self) -> int:
        """The number of connected channels, as QEMU counts them."""
        answer = self.qmp("query-spice")
        return len(answer.get("channels", [])) if isinstance(answer, dict) else 0

    def wait_for_no_client(self, deadline: float = 2) -> None:
        wait_until(lambda: not self.spice_clients(), deadline, f"{self.name} to have no clients")

    def stop(self) -> None:
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """kill -9. The socket file stays, and nobody listens at it."""
        self.process.kill()

    def _listening(self) -> bool:
        return is_listening(self.socket) and is_listening(self.monitor)

    def _painted(self) -> bool:
        return self.look().colour_share(self.colour.rgb) > 0.9

    def _boot_image(self) -> Path:
        image = BACKSTAGE / f"{self.name}.img"
        image.write_bytes(self._boot_sector())
        return image

    def _boot_sector(self) -> bytes:
        return boot_sector(self.name, self.colour)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
