"""A stand-in for the broker, for answers that a real one seldom gives."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


class Answering:
    """Answers every request with the same packets, and records the requests."""

    def __init__(self, directory: Path, answers: list[Answer | bytes]) -> None:
        self.run_dir = str(directory)
        self.asked: list[Answer] = []
        self.answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(directory / "control.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        self.asked.append(json.loads(connection.recv(65536)))
        for answer in self.answers:
            packet = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            connection.send(packet)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def answering(directory: Path, *answers: Answer | bytes) -> Iterator[Answering]:
    """`directory` must be short: a socket's path has at most 107 bytes."""
    broker = Answering(directory, list(answers))
    try:
        yield broker
    finally:
        broker.close()


REFUSED = {
    "event": "refused",
    "code": 77,
    "reason": "this is for the admins of this server",
    "hint": "they are root and the members of the group spicetunnel-admin",
}
REFUSED_SAID = f"spicetunnel: {REFUSED['reason']}\nhint: {REFUSED['hint']}\n"
HOSTILE = "x\n\x1b]0;owned\x07\x9b2J\u202e\u2028\x00"
