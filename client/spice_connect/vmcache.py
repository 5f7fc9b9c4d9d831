"""The names of the VMs seen last, for completion at the prompt: which must never ask a server.

A convenience: no failure here is anybody's failure.
"""

import contextlib
import os
from collections.abc import Iterable

from spice_connect.files import base_directory, replace
from spice_connect.names import VM_NAME


def path() -> str:
    return f"{base_directory('XDG_CACHE_HOME', '~/.cache')}/spice-connect/vms"


def remember(names: Iterable[str]) -> None:
    """These, and no other any more. A shell reads them: nothing but plain names."""
    text = "".join(f"{name}\n" for name in sorted(set(names)) if VM_NAME.fullmatch(name))
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path()), mode=0o700, exist_ok=True)
        replace(path(), text.encode())


def add(name: str) -> None:
    known = _known()
    if name not in known:
        remember([*known, name])


def _known() -> list[str]:
    try:
        with open(path(), encoding="utf-8", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
