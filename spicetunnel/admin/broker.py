"""Asks the running broker: docs/protocol.md, section 2, "The admin's command"."""

import os
import socket
from collections.abc import Iterator

import click

from spicetunnel.common import fdpass
from spicetunnel.common.errors import NotRunningError, ProtocolError, SpicetunnelError
from spicetunnel.common.protocol import (
    CONTROL_SOCKET,
    RUN_DIR,
    VERSION,
    Message,
    decode,
    encode,
    flag,
    number,
    text,
)

TIMEOUT = 20.0  # seconds; a directory server may take ten

run_dir_option = click.option(
    "--run-dir",
    default=RUN_DIR,
    show_default=True,
    metavar="DIR",
    help="The broker's run directory.",
)


def ask(run_dir: str, operation: str, **about: object) -> Message:
    """The broker's one answer. Raises SpicetunnelError: its refusal, or that it is not there."""
    with _connected(run_dir) as broker:
        _send(broker, {"v": VERSION, "op": operation, **about})
        return _receive(broker)


def ask_rows(run_dir: str, operation: str, **about: object) -> list[Message]:
    """The rows of an answer that comes in parts, under the operation's own name."""
    with _connected(run_dir) as broker:
        _send(broker, {"v": VERSION, "op": operation, **about})
        return list(_rows(broker, operation))


def _rows(broker: socket.socket, event: str) -> Iterator[Message]:
    more = True
    while more:
        part = _receive(broker)
        rows = part.get(event)
        if not isinstance(rows, list):
            raise ProtocolError(f"the broker's answer has no '{event}'")
        yield from rows
        more = flag(part, "more")


def _connected(run_dir: str) -> socket.socket:
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker.settimeout(TIMEOUT)
    try:
        broker.connect(os.path.join(run_dir, CONTROL_SOCKET))
    except OSError as error:
        broker.close()
        reason = f"the broker does not answer at {run_dir} ({(error.strerror or '?').lower()})"
        raise NotRunningError(reason, "is spicetunneld running?") from None
    return broker


def _send(broker: socket.socket, message: Message) -> None:
    try:
        fdpass.send(broker, encode(message))
    except OSError:
        raise _gone() from None


def _receive(broker: socket.socket) -> Message:
    try:
        packet, _ = fdpass.receive(broker)
    except OSError:
        raise _gone() from None
    if not packet:
        raise _gone()
    message = decode(packet)
    if text(message, "event") == "refused":
        refusal = SpicetunnelError(text(message, "reason"), text(message, "hint", ""))
        refusal.exit_code = number(message, "code")
        raise refusal
    return message


def _gone() -> NotRunningError:
    return NotRunningError("the broker went away", "try again")
