"""The names of the VMs seen last, for completion at the prompt: which must never ask a server.

One line each: a name, and the host whose list or session showed it. A convenience: no failure here
is anybody's failure.
"""

import contextlib
import os
from collections.abc import Iterable

from spice_connect.files import base_directory, replace
from spice_connect.names import VM_NAME


def path() -> str:
    return f"{base_directory('XDG_CACHE_HOME', '~/.cache')}/spice-connect/vms"


def remember(host: str, names: Iterable[str]) -> None:
    """These, and no other of this host any more. A shell reads them: nothing but plain names."""
    others = {(name, at) for name, at in _known() if at != host}
    rows = others | {(name, host) for name in names}
    text = "".join(f"{name} {at}\n" for name, at in sorted(rows) if VM_NAME.fullmatch(name))
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path()), mode=0o700, exist_ok=True)
        replace(path(), text.encode())


def add(host: str, name: str) -> None:
    known = _known()
    if (name, host) not in known:
        remember(host, [name, *(other for other, at in known if at == host)])


def _known() -> list[tuple[str, str]]:
    """Names with their hosts. No host has a space in it."""
    try:
        with open(path(), encoding="utf-8", errors="replace") as stream:
            rows = [line.split() for line in stream]
    except OSError:
        return []
    return [(row[0], row[1]) for row in rows if len(row) == 2]
