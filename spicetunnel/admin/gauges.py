"""The broker's state as Prometheus' gauges."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Gauge, generate_latest, write_to_textfile

from spicetunnel.admin.status import part
from spicetunnel.common.protocol import Message, flag, number, text

_STATES = ("running", "off", "unreachable")

Figure = tuple[str, str, float]  # a gauge's name, what it says, its value


def printed(found: Message | None) -> str:
    """`found` is STATUS of docs/protocol.md; None where the broker does not answer."""
    return generate_latest(_registry(found)).decode()


def write(found: Message | None, path: str) -> None:
    """Replace the file, in one step. Raises OSError."""
    write_to_textfile(path, _registry(found))


def _registry(found: Message | None) -> CollectorRegistry:
    """One of our own: the library's has figures of this process, which is over in a moment."""
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
    """Totals alone: a label for each user or VM would be a time series each. No bytes: they are
    the gates' word.
    """
    about = part(found, "map")
    age = datetime.now(UTC) - datetime.fromisoformat(text(about, "loaded"))
    yield "sessions", "Live sessions.", number(found, "sessions")
    yield "channels", "Open SPICE channels.", number(found, "channels")
    yield "orphans", "Sessions not handed back since a restart.", number(found, "orphans")
    yield "uptime_seconds", "Since the broker started.", number(found, "uptime")
    yield "map_ok", "Whether the map's last change was taken.", flag(about, "ok")
    yield "map_loaded_seconds", "Since the map in force was loaded.", round(age.total_seconds())
    yield "map_grants", "Grants of the map in force.", number(about, "grants")
