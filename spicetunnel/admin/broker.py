"""Requests to the running broker: docs/protocol.md, section 2, "The admin's command"."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

from spicetunnel.common.client import NoBrokerError, connect, receive, receive_rows, send
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import RUN_DIR, VERSION, Message

TIMEOUT = 20.0  # seconds; the broker gives a directory server ten

run_dir_option = click.option(
    "--run-dir",
    default=RUN_DIR,
    show_default=True,
    metavar="DIR",
    help="The broker's run directory.",
)


class BrokerDownError(SpicetunnelError):
    """The broker does not answer. Monitoring relies on this exit code."""

    exit_code = os.EX_UNAVAILABLE


def ask(run_dir: str, operation: str, **about: object) -> Message:
    """The broker's one answer. Raises its refusal, BrokerDownError or ProtocolError."""
    with _asked(run_dir, {"v": VERSION, "op": operation, **about}) as broker:
        return receive(broker)


def ask_rows(run_dir: str, operation: str, key: str = "", **about: object) -> list[Message]:
    """The rows of an answer in parts. Their key is the operation's name, if no other is given.

    Raises as `ask` does.
    """
    with _asked(run_dir, {"v": VERSION, "op": operation, **about}) as broker:
        return receive_rows(broker, key or operation)


@contextmanager
def _asked(run_dir: str, request: Message) -> Iterator[socket.socket]:
    try:
        with connect(run_dir, timeout=TIMEOUT) as broker:
            send(broker, request)
            yield broker
    except NoBrokerError as error:
        raise BrokerDownError(error.reason, "is spicetunneld running?") from None
