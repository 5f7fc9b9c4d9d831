"""Sessions of a broker before us, until their gates have handed them back.

Each keeps its VM's seat meanwhile: a restart neither frees nor doubles it. Who does not come back
in time is ended, by what the service manager kept of the VM's ends.
"""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.channels import cut, link_of
from spicetunnel.broker.peers import Anchor, anchor_again
from spicetunnel.broker.records import Record, Records
from spicetunnel.common.errors import NotPermittedError, SpicetunnelError

HAND_BACK = 10.0  # seconds for a gate to find us; ours looks every 0.5 s

VmEnds = list[socket.socket]


@dataclass(slots=True, eq=False)
class Orphan:
    """A session on record. `vm_ends` are those of the VM's ends that the service manager kept."""

    record: Record
    anchor: Anchor
    vm_ends: VmEnds
    ended: SpicetunnelError | None = None
    since: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.since = datetime.fromtimestamp(self.record.since, UTC)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def vm_name(self) -> str:
        return self.record.vm

    @property
    def user(self) -> str:
        return self.record.user

    @property
    def is_live(self) -> bool:
        return self.ended is None and self.anchor.alive

    def revoke(self, error: SpicetunnelError) -> None:
        """End it; its gate hears of it when it comes back."""
        self.ended = error
        for vm in self.vm_ends:
            cut(vm)

    def close(self) -> None:
        self.anchor.close()
        for vm in self.vm_ends:
            vm.close()


class Orphans:
    def __init__(self, records: Records, audit: Audit) -> None:
        self._records = records
        self._audit = audit
        self._known: dict[str, Orphan] = {}

    def __iter__(self) -> Iterator[Orphan]:
        return iter(list(self._known.values()))

    def adopt(self, kept: dict[str, VmEnds]) -> None:
        """Take over what is on record; `kept` is the service manager's, by session.

        A session whose SSH connection has gone meanwhile is over, and so is one without a record.
        """
        for record in self._records.read_all():
            vm_ends = kept.pop(record.id, [])
            anchor = anchor_again(record.anchor_pid, record.anchor_started)
            if anchor is None:
                _end_all(vm_ends)
                self._finish(record, "the SSH connection is gone")
            else:
                self._known[record.id] = Orphan(record, anchor, vm_ends)
        for session_id, vm_ends in kept.items():
            _end_all(vm_ends)
            self._records.drop(session_id)

    def claim(self, session_id: str, uid: int, as_name: str, anchor: Anchor) -> Orphan:
        """The session that this gate says it holds, which is then no orphan any more.

        Raises NotPermittedError where it is not this gate's, and its own reason where it has ended.
        """
        orphan = self._known.get(session_id)
        if orphan is None or not _is_theirs(orphan, uid, as_name, anchor):
            raise NotPermittedError("this server does not know the session", "connect again")
        del self._known[session_id]
        if orphan.ended is not None:
            self._bury(orphan, orphan.ended.reason)
            raise orphan.ended
        return orphan

    async def expire(self) -> None:
        """End those whose gates have not come back in time."""
        await asyncio.sleep(HAND_BACK)
        for orphan in self:
            del self._known[orphan.id]
            orphan.revoke(orphan.ended or SpicetunnelError("its gate did not hand it back"))
            alive = orphan.anchor.alive
            self._bury(orphan, str(orphan.ended) if alive else "the SSH connection is gone")

    def _bury(self, orphan: Orphan, reason: str) -> None:
        orphan.close()
        self._finish(orphan.record, reason)

    def _finish(self, record: Record, reason: str) -> None:
        """Its last lines in the log, so that each that opened something has one that ends it."""
        for channel in record.channels:
            about = {"channel": channel.number, "type": link_of(channel).type_name}
            self._audit.write("channel-end", **fields_of(record), **about, reason=reason)
        seconds = round(datetime.now(UTC).timestamp() - record.since, 3)
        end = {"seconds": seconds, "channels": record.opened, "reason": reason}
        self._audit.write("session-end", **fields_of(record), **end)
        self._records.drop(record.id)


def fields_of(record: Record) -> dict[str, object]:
    """For the log: what each line of a session tells."""
    who = {"session": record.id, "user": record.user, "uid": record.uid}
    return {**who, "via": record.via or None, "client": record.client or None, "vm": record.vm}


def _is_theirs(orphan: Orphan, uid: int, as_name: str, anchor: Anchor) -> bool:
    record = orphan.record
    whose = (record.uid, record.as_name, record.anchor_pid, record.anchor_started)
    return whose == (uid, as_name, anchor.pid, anchor.started)


def _end_all(vm_ends: VmEnds) -> None:
    for vm in vm_ends:
        cut(vm)
        vm.close()
