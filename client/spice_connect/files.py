"""Files of the user that other programs read: where they are, and how to replace one.

One of them is ours: the names of the VMs seen last, for completion in the shell, which must never
ask a server. Each line has a name and the host whose list or session had it. It is a convenience,
so a failure to read or write it is ignored.
"""

import contextlib
import difflib
import os
from collections.abc import Iterable

from spice_connect.errors import at
from spice_connect.names import VM_NAME


def base_directory(variable: str, default: str) -> str:
    """A base directory of the XDG specification, which says to ignore relative paths."""
    base = os.environ.get(variable, "")
    return base if os.path.isabs(base) else os.path.expanduser(default)


def replace(path: str, text: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace a file atomically: a reader sees the old text or the new text.

    `durable`: also after a power cut. Raises OSError.
    """
    new = f"{os.path.dirname(path)}/.{os.urandom(6).hex()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with at(path), open(fd, "wb") as stream:
            stream.write(text)
            os.fchmod(fd, mode)
            if durable:
                stream.flush()
                os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise


def vm_cache() -> str:
    return f"{base_directory('XDG_CACHE_HOME', '~/.cache')}/spice-connect/vms"


def remember_vms(host: str, names: Iterable[str]) -> None:
    """Replace the names of this host. A shell reads the file, so it only gets valid names."""
    others = {(name, at) for name, at in _known_vms() if at != host}
    rows = others | {(name, host) for name in names}
    text = "".join(f"{name} {at}\n" for name, at in sorted(rows) if VM_NAME.fullmatch(name))
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(vm_cache()), mode=0o700, exist_ok=True)
        replace(vm_cache(), text.encode())


def add_vm(host: str, name: str) -> None:
    """Add one name to those of this host."""
    known = _known_vms()
    if (name, host) not in known:
        remember_vms(host, [name, *(other for other, at in known if at == host)])


def near_name(host: str, typed: str) -> str:
    """The VM of this host, seen before, that the user may have meant; empty for none."""
    names = [name for name, at in _known_vms() if at == host]
    same = [name for name in names if name.casefold() == typed.casefold()]
    if typed in names:
        return ""
    return next(iter(same or difflib.get_close_matches(typed.lower(), names, n=1)), "")


def _known_vms() -> list[tuple[str, str]]:
    """(name, host). No host has a space in it."""
    try:
        with open(vm_cache(), encoding="utf-8", errors="replace") as stream:
            rows = [line.split() for line in stream]
    except OSError:
        return []
    return [(row[0], row[1]) for row in rows if len(row) == 2]
