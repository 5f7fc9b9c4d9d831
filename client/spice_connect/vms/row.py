"""A VM as the lists show it, and what a user may do about it."""

from typing import Any, NamedTuple

from spice_connect.times import spoken
from spice_connect.ui.terminal import clean


class Offer(NamedTuple):
    """What to offer for a VM that cannot be opened at once: `about` says why."""

    about: str
    wait: bool = False
    take_over: bool = False


class Row(NamedTuple):
    """The texts are clean. `vm`: the server's answer, and the host."""

    name: str
    host: str
    title: str
    state: str
    vm: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether it may be opened at once."""
        return str(self.vm["state"]) in {"free", "shared"}

    def offer(self) -> Offer | None:
        """What to offer instead of opening it at once; None for a VM that is free."""
        state, about = str(self.vm["state"]), f"'{self.name}' {_is(self.state)}"
        match state:
            case "closed":
                return Offer(about, wait=bool(self.vm.get("next")))
            case "busy":
                # A server that does not say decides when it is asked.
                return Offer(about, wait=True, take_over=self.vm.get("take_over") is not False)
            case "off":
                return Offer(about, wait=True)
            case "unreachable":
                return Offer(f"the server cannot reach '{self.name}': its admin knows")
        return None


class Pick(NamedTuple):
    """What the user picked."""

    row: Row
    wait: bool = False
    take_over: bool = False


def row_of(vm: dict[str, Any]) -> Row:
    name, host, title = (clean(vm[key]) for key in ("name", "host", "title"))
    return Row(name, host, title, clean(_state(vm)), vm)


def _state(vm: dict[str, Any]) -> str:
    return ", ".join([_when(vm), *vm.get("limits", [])])


def _when(vm: dict[str, Any]) -> str:
    state, who = str(vm["state"]), vm["busy_by"]
    if state == "closed" and vm["next"]:
        return f"opens {spoken(vm['next'])}"
    if who and state == "busy":
        return f"busy: {who}"
    until = f" until {spoken(vm['until'])}" if vm["until"] else ""
    # A shared VM has a place left, so the time limit matters as for a free one.
    return f"free{until}, shared with {who}" if who else f"{state}{until}"


def _is(state: str) -> str:
    return state if state.startswith("opens ") else f"is {state}"
