"""`spicetunnel metrics`: the broker's state for Prometheus, in the text format of node_exporter."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import click
from prometheus_client import CollectorRegistry, Gauge, generate_latest, write_to_textfile

from spicetunnel.admin.broker import BrokerDownError, run_dir_option
from spicetunnel.admin.status import fetch, part
from spicetunnel.common.errors import SpicetunnelError, os_reason
from spicetunnel.common.protocol import Message, flag, number, text
from spicetunnel.policy.problems import printable

_STATES = ("running", "off", "unreachable")

Figure = tuple[str, str, float]  # a gauge's name, its meaning, its value


class CannotWriteError(SpicetunnelError):
    """The file cannot be written."""

    exit_code = os.EX_CANTCREAT


@click.command()
@click.option("--output", metavar="FILE", help="Replace FILE in one step. Default: stdout.")
@run_dir_option
def metrics(output: str | None, run_dir: str) -> None:
    """Print the broker's state for Prometheus.

    If the broker does not answer, spicetunnel_up is 0, and the command succeeds.
    """
    registry = _registry(_state(run_dir))
    if output is None:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        write_to_textfile(output, registry)
    except OSError as error:
        reason = f"{printable(output)} cannot be written: {os_reason(error)}"
        hint = "run it as a user who may write there, or name another file"
        raise CannotWriteError(reason, hint) from None


def _state(run_dir: str) -> Message | None:
    """STATUS of docs/protocol.md; None if the broker does not answer."""
    try:
        return fetch(run_dir)
    except BrokerDownError:
        return None


def _registry(found: Message | None) -> CollectorRegistry:
    """A registry of our own: the default one has figures of this short-lived process."""
    registry = CollectorRegistry()
    _set(registry, ("up", "Whether the broker answers.", found is not None))
    if found is not None:
        for figure in _figures(found):
            _set(registry, figure)
        vms = Gauge("spicetunnel_vms", "The map's VMs.", ["state"], registry=registry)
        for state in _STATES:
            vms.labels(state).set(number(part(found, "vms"), state))
    return registry


def _set(registry: CollectorRegistry, figure: Figure) -> None:
    name, meaning, value = figure
    Gauge(f"spicetunnel_{name}", meaning, registry=registry).set(value)


def _figures(found: Message) -> Iterator[Figure]:
    """Totals only: a label for each user or VM would make a time series of each."""
    about = part(found, "map")
    age = datetime.now(UTC) - datetime.fromisoformat(text(about, "loaded"))
    yield "sessions", "Live sessions.", number(found, "sessions")
    yield "channels", "Open SPICE channels.", number(found, "channels")
    yield "orphans", "Sessions that wait for their gates.", number(found, "orphans")
    yield "relay_up", "Whether the relay begins sessions.", flag(part(found, "relay"), "ok")
    yield "uptime_seconds", "Since the broker started.", number(found, "uptime")
    yield "map_ok", "Whether the map's last change was taken.", flag(about, "ok")
    yield "map_loaded_seconds", "Since the map in force was loaded.", round(age.total_seconds())
    yield "map_grants", "Grants of the map in force.", number(about, "grants")
