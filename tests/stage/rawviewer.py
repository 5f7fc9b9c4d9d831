"""A viewer of the test's own, which sends whatever bytes the test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.stage.spice import VM_AGENT_DATA, VM_TOKENS, Message, agent_messages, link, ticket
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class LinkRefusedError(Exception):
    """The SpiceLinkErr is the argument."""


class RawChannel:
    """A channel whose messages are collected; a context manager. Raises LinkRefusedError."""

    def __init__(self, path: Path, kind: int, connection_id: int = 0, number: int = 0) -> None:
        self.got: list[Message] = []
        self.ended = threading.Event()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(20)
        try:
            self._sock.connect(str(path))
            self._link(link(kind, connection_id, number))
        except BaseException:
            self._sock.close()
            raise
        self._sock.settimeout(None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._sock.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._sock.sendall(part)

    def wait_for(self, kind: int) -> Message:
        def found() -> list[Message]:
            return [each for each in self.got if each.kind == kind]

        return wait_until(found, 15, lambda: f"message {kind}; there is {self.got!r:.300}")[0]

    def tokens(self) -> int:
        """That came back so far."""
        given = (each.body for each in self.got if each.kind == VM_TOKENS)
        return sum(int.from_bytes(each, "little") for each in given)

    def agent_said(self) -> list[Message]:
        said = [each.body for each in self.got if each.kind == VM_AGENT_DATA]
        return list(agent_messages(said, so_far=True))

    def _link(self, announced: bytes) -> None:
        self._sock.sendall(announced)
        size = int.from_bytes(self._exactly(16)[12:], "little")
        reply = self._exactly(size)
        if error := int.from_bytes(reply[:4], "little"):
            raise LinkRefusedError(error)
        key = serialization.load_der_public_key(reply[4:166])
        assert isinstance(key, rsa.RSAPublicKey)
        # QEMU decrypts it even where it wants no password.
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        self._sock.sendall(ticket(key.encrypt(b"\0", oaep)))
        if error := int.from_bytes(self._exactly(4), "little"):
            raise LinkRefusedError(error)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._sock.recv(size - len(data))
            if not part:
                raise ConnectionError(f"the channel ended after {data!r}")
            data += part
        return data

    def _listen(self) -> None:
        try:
            while True:
                head = self._exactly(6)
                body = self._exactly(int.from_bytes(head[2:], "little"))
                self.got.append(Message(int.from_bytes(head[:2], "little"), body))
        except OSError:
            self.ended.set()
