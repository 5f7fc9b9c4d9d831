"""A minimal client of QEMU's machine protocol (docs/interop/qmp-spec in QEMU)."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

from tests.stage.waiting import StageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

TIMEOUT = 10


def qmp(path: Path, command: str, **arguments: object) -> Any:
    """Run one command on the monitor at `path` and return its answer. Raises StageError.

    QEMU serves one client at a time, so each command has a short connection of its own.
    """
    with _connect(path) as stream:
        # An event may come before the greeting.
        if not any("QMP" in json.loads(line) for line in stream):
            raise StageError(f"no QMP greeting at {path}")
        _ask(stream, "qmp_capabilities", {})
        return _ask(stream, command, arguments)


@contextlib.contextmanager
def _connect(path: Path) -> Iterator[IO[str]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8") as stream:
            yield stream


def _ask(stream: IO[str], command: str, arguments: dict[str, object]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    for line in stream:
        answer = json.loads(line)
        if "error" in answer:
            raise StageError(f"QEMU refused {command}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
        # Anything else is an event.
    raise StageError(f"QEMU hung up during {command}")
