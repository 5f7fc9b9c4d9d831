"""How admins see and end sessions: docs/protocol.md, section 2, "The admin's command".

Anybody else sees their own and ends none.
"""

import asyncio
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from spicetunnel import __version__
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.listener import RunDirectory
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Admins, Asker
from spicetunnel.broker.relays import RelayError, Relays
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import State, States
from spicetunnel.common.errors import NotPermittedError, ProtocolError, UsageError
from spicetunnel.common.names import is_session_id, is_vm_name
from spicetunnel.common.protocol import (
    CONTROL_SOCKET,
    MAX_NUMBER,
    MAX_REASON,
    TUNNEL_SOCKET,
    Message,
    text,
)
from spicetunnel.policy.moments import instant
from spicetunnel.policy.problems import printable
from spicetunnel.policy.vmmap import Source


@dataclass(frozen=True, slots=True)
class Kick:
    """Which sessions to end: those that match every field that is not empty. `reason`: why."""

    session: str
    user: str
    vm: str
    reason: str

    @classmethod
    def of(cls, request: Message) -> Self:
        """Raises ProtocolError, or UsageError if every field is empty."""
        session, user, vm = (text(request, key, "") for key in ("session", "user", "vm"))
        if session and not is_session_id(session):
            raise ProtocolError("'session' is not a session's id")
        if vm and not is_vm_name(vm):
            raise ProtocolError("'vm' is not a VM's name")
        if not (session or user or vm):
            raise UsageError("nothing says whose session to end", "name a session, a user or a vm")
        return cls(session, user, vm, _one_line(text(request, "reason", "")))

    def names(self, session: Session) -> bool:
        wanted = zip(
            (self.session, self.user, self.vm),
            (session.id, session.user, session.vm_name),
            strict=True,
        )
        return all(word in {"", its} for word, its in wanted)

    def told(self, vm: str) -> NotPermittedError:
        """What the person is told."""
        said = f"your session at '{vm}' was ended by the admin"
        if self.reason:
            return NotPermittedError(f"{said}: {self.reason}")
        return NotPermittedError(said, "ask the admin why")


class Oversight:
    def __init__(self, seats: Seats, admins: Admins, audit: Audit) -> None:
        self._seats = seats
        self._admins = admins
        self._audit = audit

    async def sessions(self, gate: GateConnection, _request: Message, asker: Asker) -> None:
        everybodys = self._admins.include(asker)
        mine = asker.person.user
        shown = [each for each in self._seats if everybodys or each.user == mine]
        await gate.send_rows("sessions", [_row(each) for each in shown])

    async def kick(self, gate: GateConnection, request: Message, asker: Asker) -> None:
        """Raises UsageError or ProtocolError."""
        which = Kick.of(request)
        ended = [each for each in self._seats if which.names(each)]
        for session in ended:
            self._log(which, session, asker)
            session.revoke(which.told(session.vm_name))
        rows: list[Message] = [
            {"id": each.id, "user": each.user, "vm": each.vm_name} for each in ended
        ]
        await gate.send_rows("kicked", rows)

    def _log(self, which: Kick, session: Session, admin: Asker) -> None:
        whose = {"session": session.id, "user": session.user, "vm": session.vm_name}
        by = {"by": admin.person.user, "by_uid": admin.uid}
        self._audit.write("kick", **whose, **by, reason=which.reason or None)


def _row(session: Session) -> Message:
    asker, traffic = session.asker, session.traffic
    # A relay's process may have said anything: the reader takes no number that is larger.
    sizes = (traffic.up, traffic.down, *map(round, traffic.rates))
    bytes_up, bytes_down, rate_up, rate_down = (min(each, MAX_NUMBER) for each in sizes)
    return {
        "id": session.id,
        "user": session.user,
        "vm": session.vm_name,
        "since": instant(session.since),
        "from": asker.client or "",
        "via": asker.via,
        "channels": len(session.channels),
        "until": instant(session.until),
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "rate_up": rate_up,
        "rate_down": rate_down,
    }


def _one_line(words: str) -> str:
    """An admin's text as one printable line, for other people's terminals."""
    return printable(" ".join(words.split()))[:MAX_REASON]


MAX_PIECE = 4096  # characters; each may take 12 bytes of a packet


class MapText:
    """The map in force, for admins who may not read its files: 0640, root and the broker."""

    def __init__(self, maps: MapStore) -> None:
        self._maps = maps

    async def map(self, gate: GateConnection, _request: Message, _asker: Asker) -> None:
        # In a thread: the files may have megabytes.
        rows = await asyncio.to_thread(_pieces, self._maps.sources)
        await gate.send_rows("map", rows)


def _pieces(sources: list[Source]) -> list[Message]:
    """The files' texts, the main one first, in pieces of which each fits into a packet."""
    rows: list[Message] = []
    for data, name in sources:
        text = data.decode("utf-8", "replace")
        starts = range(0, max(1, len(text)), MAX_PIECE)
        rows += [{"file": name, "text": text[at : at + MAX_PIECE]} for at in starts]
    return rows


MAX_NAMES = 100  # of VMs in one answer: it is one packet


class Status:
    def __init__(
        self,
        maps: MapStore,
        seats: Seats,
        relays: Relays,
        states: States,
        directory: RunDirectory,
    ) -> None:
        self._maps = maps
        self._states = states
        self._seats = seats
        self._relays = relays
        self._directory = directory.path
        self._started = datetime.now(UTC)

    async def status(self, gate: GateConnection, _request: Message, _asker: Asker) -> None:
        about = {"relay": await self._relay(), "map": self._map(), "vms": await self._vms()}
        gate.send({"event": "status", "status": {**self._broker(), **about}})

    def _broker(self) -> Message:
        sessions = list(self._seats)
        attended = [each for each in sessions if each.gate]
        return {
            "version": __version__,
            "started": instant(self._started),
            "uptime": round((datetime.now(UTC) - self._started).total_seconds()),
            "sessions": len(attended),
            "channels": sum(len(each.channels) for each in attended),
            "orphans": len(sessions) - len(attended),
            "sockets": [
                _socket(self._directory / each) for each in (CONTROL_SOCKET, TUNNEL_SOCKET)
            ],
        }

    async def _relay(self) -> Message:
        """Whether the relay begins sessions: by beginning one that is of nobody."""
        try:
            await self._relays.try_out(self._seats.new_id())
        except RelayError as error:
            return {"ok": False, "error": error.reason}
        return {"ok": True, "error": ""}

    def _map(self) -> Message:
        maps = self._maps
        problems = maps.refused.problems if maps.refused else []
        return {
            "file": str(maps.path),
            "age": None if (age := maps.age()) is None else round(age),
            "loaded": instant(maps.loaded),
            "vms": len(maps.current.vms),
            "grants": maps.grants,
            "ok": not problems,
            "error": str(problems[0])[:500] if problems else "",
            "errors": len(problems),
        }

    async def _vms(self) -> Message:
        vms = self._maps.current.vms
        states = await self._states.of(vm.socket for vm in vms.values())
        by_state: dict[State, list[str]] = {"running": [], "off": [], "unreachable": []}
        for name, vm in vms.items():
            by_state[states[vm.socket]].append(name)
        counts: Message = {key: len(names) for key, names in by_state.items()}
        return {**counts, "unreachable_names": sorted(by_state["unreachable"])[:MAX_NAMES]}


def _socket(path: Path) -> Message:
    """Whether the socket's file is still there: if it was removed, nobody can connect."""
    try:
        there = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        there = False
    return {"path": str(path), "ok": there}
