"""`spicetunnel metrics`: the broker's state for Prometheus, as node_exporter's textfile collector
takes it.
"""

import os

import click

from spicetunnel.admin.broker import BrokerDownError, run_dir_option
from spicetunnel.admin.status import fetch
from spicetunnel.common.errors import SpicetunnelError, os_reason
from spicetunnel.common.protocol import Message
from spicetunnel.policy.problems import printable


class CannotWriteError(SpicetunnelError):
    """The file cannot be put in place."""

    exit_code = os.EX_CANTCREAT


@click.command()
@click.option("--output", metavar="FILE", help="Replace FILE, in one step. Default: stdout.")
@run_dir_option
def metrics(output: str | None, run_dir: str) -> None:
    """Print the broker's state for Prometheus.

    A broker that does not answer is spicetunnel_up 0, and no failure of this command.
    """
    from spicetunnel.admin import gauges  # noqa: PLC0415 - its library takes a while to load

    found = _state(run_dir)
    if output is None:
        click.echo(gauges.printed(found), nl=False)
        return
    try:
        gauges.write(found, output)
    except OSError as error:
        reason = f"{printable(output)} cannot be written: {os_reason(error)}"
        raise CannotWriteError(reason) from None


def _state(run_dir: str) -> Message | None:
    try:
        return fetch(run_dir)
    except BrokerDownError:
        return None
