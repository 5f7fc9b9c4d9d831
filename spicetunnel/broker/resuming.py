"""A gate that outlived a broker hands its session back to us: docs/protocol.md, section 2.

It says which session, and gives the VM's ends. What we believe of it stands on the record that the
other broker left, and is the kernel's: the uid, the SSH connection's process, the very sockets.
"""

import os
import socket
from datetime import UTC, datetime

from spicetunnel.broker import reports
from spicetunnel.broker.channels import KNOWN_TYPES, Channel, link_of
from spicetunnel.broker.dial import Place
from spicetunnel.broker.orphans import Orphan, Orphans
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.parts import Parts
from spicetunnel.broker.peers import anchor_of, vm_end
from spicetunnel.broker.people import Asker
from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.names import is_session_id
from spicetunnel.common.protocol import Message, text

Ends = dict[tuple[int, int], socket.socket]  # by what `vm_end` says


class Resuming:
    def __init__(self, parts: Parts, orphans: Orphans) -> None:
        self._parts = parts
        self._orphans = orphans

    async def resume(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Serve the session to its end. Raises SpicetunnelError where it is not to be resumed."""
        session_id = text(request, "session")
        if not is_session_id(session_id):
            raise ProtocolError("'session' is not a session's id")
        anchor = anchor_of(gate.peer)
        try:
            orphan = self._orphans.claim(session_id, asker.uid, asker.as_name, anchor)
        except BaseException:
            anchor.close()
            raise
        anchor.close()  # the orphan has one of its own
        session = self._adopted(orphan, asker, gate)
        missing = _take_channels(session, orphan, gate.take_descriptors())
        self._parts.seats.add(session)
        session.log("resume", channels=len(session.channels) - len(missing))
        gate.send({"event": "resumed"})
        try:
            _catch_up(session, request, missing)
        except ProtocolError as error:
            session.revoke(error)
        await self._parts.lifecycle.hold(session)

    def _adopted(self, orphan: Orphan, asker: Asker, gate: GateConnection) -> Session:
        """The orphan as a session of ours, still without its channels."""
        record = orphan.record
        decision = self._parts.judge.decide(asker, record.vm)
        return Session(
            asker=asker,
            vm_name=record.vm,
            place=Place(record.vm_socket, record.vm_born),
            # The first review ends what is no longer allowed; nothing is opened before it.
            denied=decision.denied if decision.allow else KNOWN_TYPES,
            keep=record.keep,
            gate=gate,
            anchor=orphan.anchor,
            grace=self._parts.grace,
            audit=self._parts.audit,
            records=self._parts.records,
            id=record.id,
            since=datetime.fromtimestamp(record.since, UTC),
            opened=record.opened,
        )


def _take_channels(session: Session, orphan: Orphan, fds: list[int]) -> set[int]:
    """Give the session its channels on record; the numbers of those that the gate did not bring."""
    handed, kept = _ends(_sockets(fds)), _ends(orphan.vm_ends)
    missing = set()
    for each in orphan.record.channels:
        key = (each.inode, each.peer_pid)
        vm = handed.pop(key, None)
        if vm is None:
            missing.add(each.number)
            # Cut what there is of it; where there is nothing, it is only to be logged.
            vm = kept.pop(key, None) or socket.socket(socket.AF_UNIX)
        session.channels[each.number] = Channel(each.number, link_of(each), vm)
    for vm in (*handed.values(), *kept.values()):
        vm.close()  # a duplicate, or nothing that we ever gave
    return missing


def _sockets(fds: list[int]) -> list[socket.socket]:
    """Whatever a gate hands over: only sockets count."""
    found = []
    for fd in fds:
        try:
            found.append(socket.socket(fileno=fd))
        except OSError:
            os.close(fd)
    return found


def _ends(sockets: list[socket.socket]) -> Ends:
    """By what tells them apart. One that is given twice is closed, as is what is no Unix socket."""
    ends: Ends = {}
    for sock in sockets:
        key = vm_end(sock) if sock.family == socket.AF_UNIX else None
        if key is None or key in ends:
            sock.close()
        else:
            ends[key] = sock
    return ends


def _catch_up(session: Session, request: Message, missing: set[int]) -> None:
    """What the gate could tell nobody meanwhile. Raises ProtocolError."""
    over = request.get("closed", [])
    if not isinstance(over, list) or not all(isinstance(each, dict) for each in over):
        raise ProtocolError("'closed' is not a list of reports")
    for report in over:
        reports.closed(session, report)
    reports.count(session, request.get("channels"))
    for number in missing:
        session.close_channel(number, "not handed back")
