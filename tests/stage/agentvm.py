"""A real VM whose guest joins QEMU's agent port to a socket, where the test plays the agent.

The agent's port is a serial one, so that 512 bytes of guest can use it: what a viewer sends through
QEMU's SPICE server, the guest reads and passes on.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from tests.stage.bootsector import boot_sector
from tests.stage.spice import PIECE, agent_message
from tests.stage.vm import BACKSTAGE, Vm
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

#: VDIChunkHeader of spice-protocol: who the other end is, and the size. The SPICE server itself
#: talks to the agent as well.
CHUNK = struct.Struct("<II")
CLIENT, SERVER = 1, 2


class AgentVm(Vm):
    """With a QEMU monitor and a serial console, both of which viewers may open as a `port`."""

    @property
    def agent_socket(self) -> str:
        return str(BACKSTAGE / f"{self.name}.agent")

    @property
    def devices(self) -> Sequence[str]:
        return (
            *("-chardev", "spicevmc,id=agent,name=vdagent"),
            *("-device", "isa-serial,chardev=agent"),
            *("-chardev", f"socket,id=test,path={self.agent_socket},server=on,wait=off"),
            *("-device", "isa-serial,chardev=test"),
            *("-chardev", "spiceport,id=console,name=org.qemu.console.serial.0"),
            *("-device", "isa-serial,chardev=console"),
            *("-chardev", "spiceport,id=monitor,name=org.qemu.monitor.hmp.0"),
            *("-mon", "chardev=monitor"),
        )

    def _boot_sector(self) -> bytes:
        return boot_sector(self.name, self.colour, joins_ports=True)


class Heard(NamedTuple):
    """An agent message, and who it is from."""

    port: int
    kind: int
    body: bytes


class Agent:
    """Plays the agent, and notes each message that the guest's port gets; a context manager."""

    def __init__(self, vm: AgentVm) -> None:
        self.heard: list[Heard] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(vm.agent_socket)
        self._messages: dict[int, bytearray] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._sock.close()

    def kinds(self) -> list[int]:
        """The types of the messages from the viewer so far."""
        return [each.kind for each in self.heard if each.port == CLIENT]

    def wait_for(self, kind: int, deadline: float = 10) -> None:
        wait_until(
            lambda: kind in self.kinds(), deadline, lambda: f"{kind}; there is {self.kinds()}"
        )

    def say(self, kind: int, body: bytes) -> None:
        message = agent_message(kind, body)
        for at in range(0, len(message), PIECE):
            part = message[at : at + PIECE]
            self._sock.sendall(CHUNK.pack(CLIENT, len(part)) + part)

    def _listen(self) -> None:
        while head := self._read(CHUNK.size):
            port, size = CHUNK.unpack(head)
            message = self._messages.setdefault(port, bytearray())
            message += self._read(size)
            while len(message) >= 20 and len(message) >= 20 + (
                size := int.from_bytes(message[16:20], "little")
            ):
                kind = int.from_bytes(message[4:8], "little")
                self.heard.append(Heard(port, kind, bytes(message[20 : 20 + size])))
                del message[: 20 + size]

    def _read(self, size: int) -> bytes:
        """So many bytes, or none at the end."""
        data = b""
        while len(data) < size:
            part = self._sock.recv(size - len(data))
            if not part:
                return b""
            data += part
        return data
