"""The VMs of a list, as a person reads them."""

from typing import Any, NamedTuple

from spice_connect.ui.terminal import clean


class Row(NamedTuple):
    """Clean texts. `vm` is what the server said, and the host that did."""

    name: str
    host: str
    title: str
    state: str
    vm: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether its time and place are now."""
        return str(self.vm["state"]) != "closed"


def row_of(vm: dict[str, Any]) -> Row:
    name, host, title = (clean(vm[key]) for key in ("name", "host", "title"))
    return Row(name, host, title, clean(_state(vm)), vm)


def _state(vm: dict[str, Any]) -> str:
    state, who = str(vm["state"]), vm["busy_by"]
    if state == "closed" and vm["next"]:
        return f"opens {_short(vm['next'])}"
    if who and state != "shared":
        return f"busy: {who}"
    until = f" until {_short(vm['until'])}" if vm["until"] else ""
    # Shared: there is room, so until when one may come counts as with a free one.
    return f"free{until}, shared with {who}" if who else f"{state}{until}"


def _short(moment: str) -> str:
    """`2026-11-23T17:00:00+01:00`, to the minute; the server's clock is meant."""
    return moment[:16].replace("T", " ")
