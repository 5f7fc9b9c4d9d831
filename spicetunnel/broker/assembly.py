"""The broker's parts, put together. Data goes one way: each knows those above it, and no other."""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from spicetunnel.broker.admins import Admins
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.console import Console
from spicetunnel.broker.control import Answer, Control
from spicetunnel.broker.granting import Granting
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.maps import LastMap, MapStore
from spicetunnel.broker.opening import Opening
from spicetunnel.broker.orphans import Orphans
from spicetunnel.broker.oversight import Oversight
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.parts import Parts
from spicetunnel.broker.people import People
from spicetunnel.broker.records import Records
from spicetunnel.broker.resuming import Resuming
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.server import RunDirectory
from spicetunnel.broker.status import Status
from spicetunnel.broker.systemd import ServiceManager
from spicetunnel.broker.tunnel import Tunnel


class Options(NamedTuple):
    """`grace`: seconds a session may go on without a broker."""

    map: Path
    run_dir: Path
    state_dir: Path
    grace: int
    admin_group: str


class Broker:
    """Raises MapError or SpicetunnelError where there is nothing to start with."""

    def __init__(self, options: Options, manager: ServiceManager) -> None:
        self.audit = Audit()
        self.directory = RunDirectory(options.run_dir)
        self.maps = MapStore(options.map, self.audit, LastMap(options.state_dir))
        self.console = Console()
        self.records = Records(self.directory.path, manager, self.audit)
        self.orphans = Orphans(self.records, self.audit)
        self.people = People(self.maps)
        self.grants = Grants(options.state_dir, self.audit, datetime.now(UTC))
        self.judge = Judge(self.maps, self.grants, self.console)
        self.seats = Seats(self.orphans)
        self.admins = Admins(options.admin_group)
        self.lifecycle = Lifecycle(self.judge, self.people, self.seats)
        self.granting = Granting(self.grants, self.judge, self.lifecycle, self.admins, self.audit)
        self.tunnel = Tunnel(self.judge, self.seats, self.audit)
        self._control = Control(
            self.judge, self.people, self.seats, self.audit, self._answers(options.grace)
        )

    def _answers(self, grace: int) -> dict[str, Answer]:
        parts = Parts(
            self.judge,
            self.people,
            self.seats,
            self.lifecycle,
            self.records,
            self.audit,
            grace,
        )
        opening, resuming = Opening(parts), Resuming(parts, self.orphans)
        oversight = Oversight(self.seats, self.orphans, self.admins, self.audit)
        status = Status(self.maps, self.seats, self.orphans, self.admins, self.directory)
        return {
            "open": opening.open,
            "resume": resuming.resume,
            "sessions": oversight.sessions,
            "kick": oversight.kick,
            "status": status.status,
            "grant": self.granting.grant,
            "revoke": self.granting.revoke,
            "grants": self.granting.grants,
        }

    async def serve_control(self, connection: socket.socket) -> None:
        await self._control.serve(GateConnection(connection))

    async def serve_tunnel(self, viewer: socket.socket) -> None:
        await self.tunnel.serve(viewer)
