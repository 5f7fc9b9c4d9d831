"""The state of the broker, for the admin and for monitoring."""

import asyncio
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from spicetunnel import __version__
from spicetunnel.broker.audit import iso
from spicetunnel.broker.connection import GateConnection
from spicetunnel.broker.listener import RunDirectory
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Asker
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.vmsocket import State, state
from spicetunnel.common.protocol import CONTROL_SOCKET, TUNNEL_SOCKET, Message
from spicetunnel.policy.vmmap import Vm

MAX_NAMES = 100  # of VMs in one answer: it is one packet


class Status:
    def __init__(self, maps: MapStore, seats: Seats, directory: RunDirectory) -> None:
        self._maps = maps
        self._seats = seats
        self._directory = directory.path
        self._started = datetime.now(UTC)

    async def status(self, gate: GateConnection, _request: Message, _asker: Asker) -> None:
        # In a thread: with thousands of VMs, or one on a slow file system, it takes a while.
        vms = await asyncio.to_thread(_vms, self._maps.current.vms)
        gate.send({"event": "status", "status": {**self._broker(), "map": self._map(), "vms": vms}})

    def _broker(self) -> Message:
        sessions = list(self._seats)
        attended = [each for each in sessions if each.gate]
        return {
            "version": __version__,
            "started": iso(self._started),
            "uptime": round((datetime.now(UTC) - self._started).total_seconds()),
            "sessions": len(attended),
            "channels": sum(len(each.channels) for each in attended),
            "orphans": len(sessions) - len(attended),
            "sockets": [
                _socket(self._directory / each) for each in (CONTROL_SOCKET, TUNNEL_SOCKET)
            ],
        }

    def _map(self) -> Message:
        maps = self._maps
        problems = maps.refused.problems if maps.refused else []
        return {
            "file": str(maps.path),
            "age": None if (age := maps.age()) is None else round(age),
            "loaded": iso(maps.loaded),
            "vms": len(maps.current.vms),
            "grants": maps.grants,
            "ok": not problems,
            "error": str(problems[0])[:500] if problems else "",
            "errors": len(problems),
        }


def _socket(path: Path) -> Message:
    """Whether the socket's file is still there: if it was removed, nobody can connect."""
    try:
        there = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        there = False
    return {"path": str(path), "ok": there}


def _vms(vms: Mapping[str, Vm]) -> Message:
    by_state: dict[State, list[str]] = {"running": [], "off": [], "unreachable": []}
    for name, vm in vms.items():
        by_state[state(vm.socket)].append(name)
    counts: Message = {key: len(names) for key, names in by_state.items()}
    return {**counts, "unreachable_names": sorted(by_state["unreachable"])[:MAX_NAMES]}
