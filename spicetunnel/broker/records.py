"""What a broker leaves to its successor: a small file for each live session, in the run directory.

The kernel ends sessions, not we: a record alone proves nothing. It says what the successor may
believe of a gate that hands a session back (whose it is, at which VM, since when, and which
descriptors are the VM's ends), and whose seat it is until the gate has done so.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.statefile import replace
from spicetunnel.broker.systemd import ServiceManager

DIRECTORY = "sessions"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """A channel's link, and its VM's end: the socket's inode and the peer's pid, the kernel's."""

    number: int
    connection_id: int
    channel_type: int
    channel_id: int
    inode: int
    peer_pid: int


@dataclass(frozen=True, slots=True)
class Record:
    """One session. `since` is in seconds since 1970; `anchor_started` in the kernel's ticks."""

    id: str
    uid: int
    as_name: str  # empty where the account spoke for itself
    via: str  # the account that spoke, where it was not their own
    user: str
    client: str
    vm: str
    vm_socket: str
    vm_born: str
    keep: bool
    since: float
    anchor_pid: int
    anchor_started: int
    opened: int
    channels: tuple[ChannelRecord, ...]


class Records:
    def __init__(self, run_dir: Path, manager: ServiceManager, audit: Audit) -> None:
        self._directory = run_dir / DIRECTORY
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._manager = manager
        self._audit = audit

    def write(self, record: Record) -> None:
        """Put the session's present state on record, in one step."""
        text = json.dumps({"v": _VERSION, **asdict(record)})
        replace(self._path(record.id), text.encode())

    def keep(self, session_id: str, fd: int) -> None:
        """Have the service manager hold this VM's end."""
        self._manager.keep(session_id, fd)

    def drop(self, session_id: str) -> None:
        self._path(session_id).unlink(missing_ok=True)
        self._manager.drop(session_id)

    def read_all(self) -> list[Record]:
        """The predecessor's sessions. What cannot be read is removed, and so nobody's any more."""
        found = []
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("."):  # written, and never put in place
                path.unlink()
                continue
            try:
                found.append(_parse(path.read_bytes()))
            except (OSError, ValueError, TypeError, KeyError) as error:
                self._audit.write("fault", reason=f"no record of a session: {path}: {error!r}")
                path.unlink(missing_ok=True)
        return found

    def _path(self, session_id: str) -> Path:
        return self._directory / session_id


def _parse(data: bytes) -> Record:
    fields = json.loads(data)
    if fields.pop("v") != _VERSION:
        raise ValueError("of another version")
    channels = tuple(ChannelRecord(**each) for each in fields.pop("channels"))
    return Record(**fields, channels=channels)
