"""What a broker leaves to its successor: a small file for each live session, in the run directory.

The kernel ends sessions, not we: a record alone proves nothing. It says what the successor may
believe: whose the session is, at which VM, since when, which process is its relay and which
sockets are its VM's ends. It is our own word, and no gate and no relay can write it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spicetunnel.broker.audit import Audit
from spicetunnel.common.errors import SpicetunnelError, os_reason
from spicetunnel.common.files import replace

DIRECTORY = "sessions"
_VERSION = 2


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """A channel's link, and its VM's end: the socket's inode and the peer's pid, the kernel's.

    `filter`: what its relay lets through between viewer and agent; None: everything.
    """

    number: int
    connection_id: int
    channel_type: int
    channel_id: int
    inode: int
    peer_pid: int
    filter: list[str] | None = None  # not in a record of a broker that knew no filter


@dataclass(frozen=True, slots=True)
class Record:
    """One session. `since` is in seconds since 1970, `grace` in seconds; `anchor_started` and
    `relay_started` are in the kernel's ticks; `closed_up` and `closed_down` are bytes.
    """

    id: str
    uid: int
    via: str  # the account that spoke for the person, where it was not their own
    user: str
    client: str
    vm: str
    vm_socket: str
    vm_born: str
    keep: bool
    since: float
    grace: int
    anchor_pid: int
    anchor_started: int
    relay_pid: int
    relay_started: int
    opened: int
    closed_up: int
    closed_down: int
    channels: tuple[ChannelRecord, ...]
    ended: str = ""  # why, once the session has ended: the next broker must not take it up


class RecordError(SpicetunnelError):
    """A record could not be written."""


class Records:
    def __init__(self, run_dir: Path, audit: Audit) -> None:
        self._directory = run_dir / DIRECTORY
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._audit = audit

    def write(self, record: Record) -> None:
        """Write the session's present state, in one step. Raises RecordError."""
        text = json.dumps({"v": _VERSION, **asdict(record)})
        try:
            replace(self._directory / record.id, text.encode())
        except OSError as error:
            self._fault(record.id, error)
            reason = "the server cannot note the session"
            raise RecordError(reason, "tell the admin of this server") from None

    def drop(self, session_id: str) -> None:
        try:
            (self._directory / session_id).unlink(missing_ok=True)
        except OSError as error:
            self._fault(session_id, error)

    def _fault(self, session_id: str, error: OSError) -> None:
        reason = f"the record of the session cannot be changed: {os_reason(error)}"
        self._audit.write("fault", session=session_id, reason=reason)

    def read_all(self) -> list[Record]:
        """The sessions of the broker before. A record that cannot be read is removed."""
        found = []
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("."):  # written, and never put in place
                path.unlink()
                continue
            try:
                found.append(_parse(path.read_bytes()))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._audit.write("fault", reason=f"no record of a session: {path}: {error!r}")
                path.unlink(missing_ok=True)
        return found


def _parse(data: bytes) -> Record:
    fields = json.loads(data)
    if fields.pop("v") != _VERSION:
        raise ValueError("of another version")
    channels = tuple(ChannelRecord(**each) for each in fields.pop("channels"))
    return Record(**fields, channels=channels)
