"""A VM that answers each byte with itself, and a session at it: what the viewer gets back went both
ways."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import socket
import threading
import time
from typing import TYPE_CHECKING

from tests.stage.spice import link
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from typing import Self

    from tests.stage.process import Process

VM_DIRECTORY = "/var/lib/spicetunnel/vms"
PROGRAM = """\
#!/usr/bin/python3 -I
import os, socket, sys, threading
def answer(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(64)
    while True:
        threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
"""
#: QEMU's user, as libvirt has one.
VM_USER = "libvirt-qemu"
#: By the umask and the directory's set-group-id bit, the socket is open to the broker's group.
UNIT = f"""\
[Service]
User={VM_USER}
UMask=0002
ExecStart=/usr/local/bin/echo-vm {VM_DIRECTORY}/%i.sock
[Install]
WantedBy=multi-user.target
"""


class Stream:
    """The bytes that went one way."""

    def __init__(self) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self.digest.update(data)


class EchoSession:
    """A session with bytes going through it: what the viewer sends, the VM sends back."""

    BLOCK = 64 * 1024

    def __init__(self, vm: str, ssh: Process, viewer: socket.socket) -> None:
        self.vm = vm
        self.ssh = ssh
        self._viewer = viewer
        self._sent, self._received = Stream(), Stream()
        self._failure: OSError | None = None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=job) for job in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()
        self.goes_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._viewer.shutdown(socket.SHUT_RDWR)  # wakes the threads
        for thread in self._threads:
            thread.join()
        self._viewer.close()  # ssh waits for it

    def goes_on(self, deadline: float = 10) -> None:
        """Wait until bytes have come back that were not even sent yet."""
        sent = self._sent.bytes
        wait_until(
            lambda: self._received.bytes > sent, deadline, f"the session at {self.vm} to go on"
        )

    def finish(self) -> None:
        """End the channel from the viewer's side, and find every byte to have come back."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        assert self._failure is None
        assert self._received.bytes == self._sent.bytes
        assert self._received.digest.digest() == self._sent.digest.digest()

    def is_cut(self, deadline: float = 5) -> None:
        """Wait until the other side has ended the channel."""
        self._threads[1].join(deadline)
        assert not self._threads[1].is_alive(), f"the session at {self.vm} goes on"
        self.__exit__()

    def _send(self) -> None:
        numbers = itertools.count()
        block = bytearray(random.Random(1).randbytes(self.BLOCK))
        data = link()
        try:
            while not self._stop.is_set():
                self._sent.add(data)
                self._viewer.sendall(data)
                block[:8] = next(numbers).to_bytes(8, "big")
                data = bytes(block)
                time.sleep(0.001)
            self._viewer.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._failure = error

    def _receive(self) -> None:
        try:
            while data := self._viewer.recv(self.BLOCK):
                self._received.add(data)
        except OSError as error:
            self._failure = error
