"""What of the options cannot go together."""

from typing import Any

from spice_connect.errors import UsageError

OF_A_VIEWER = ("full_screen", "monitors", "arguments")
#: What icons keep, too.
OF_A_SESSION = ("take_over", "wait", "no_reconnect", "full_screen", "monitors")


def check(given: dict[str, Any]) -> None:
    """Raises UsageError."""
    for flag, option in ("as_json", "--json"), ("as_list", "--list"):
        if given["vm"] is not None and given[flag]:
            raise UsageError(f"{option} is for the list of VMs", "leave out the VM's name")
    if given["quiet"] and given["verbose"]:
        raise UsageError("--quiet and --verbose are opposites", "leave one of them out")
    if given["no_viewer"] and any(given[of_a_viewer] for of_a_viewer in OF_A_VIEWER):
        raise UsageError("--no-viewer leaves no viewer to tell anything", "leave one of them out")


def check_needs_no_vm(given: dict[str, Any]) -> None:
    """Raises UsageError where something asks for a VM, and there is none."""
    if any(given[name] for name in (*OF_A_SESSION, "no_viewer")):
        *most, last = (as_option(name) for name in (*OF_A_SESSION, "no_viewer"))
        raise UsageError(
            f"{', '.join(most)} and {last} need a VM",
            "name one, or pick one on a terminal, without --list",
        )


def as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
