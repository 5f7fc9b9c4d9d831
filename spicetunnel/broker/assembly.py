"""The broker's parts, put together. Each knows only parts that are made before it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from spicetunnel.broker.answers import Answers
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.console import Console
from spicetunnel.broker.control import WATCHING, Control, Operation
from spicetunnel.broker.granting import Granting
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.handover import Handover
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.listener import RunDirectory
from spicetunnel.broker.maps import LastMap, MapStore
from spicetunnel.broker.opening import Opening
from spicetunnel.broker.oversight import MapText, Oversight, Status
from spicetunnel.broker.people import Admins, People
from spicetunnel.broker.records import Records
from spicetunnel.broker.relays import Relays
from spicetunnel.broker.review import Review
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.tunnel import Tunnel
from spicetunnel.broker.vm import States
from spicetunnel.common.protocol import TUNNEL_SOCKET

MAPS_A_MINUTE = 60  # a map may have megabytes


class Options(NamedTuple):
    """`grace`: seconds a session may go on without a broker; `accounts_away`: while its person
    cannot be looked up.
    """

    map: Path
    run_dir: Path
    relay_dir: Path
    state_dir: Path
    grace: int
    accounts_away: int
    admin_group: str


class Broker:
    """Raises MapError or SpicetunnelError if the broker cannot start."""

    def __init__(self, options: Options) -> None:
        self.audit = Audit()
        self.directory = RunDirectory(options.run_dir)
        self.maps = MapStore(options.map, self.audit, LastMap(options.state_dir))
        self.console = Console()
        self.grants = Grants(options.state_dir, self.audit, datetime.now(UTC))
        self.rules = Rules(self.maps, self.grants, self.console)
        self.people = People(self.maps, options.accounts_away)
        self.admins = Admins(options.admin_group)
        self.records = Records(self.directory.path, self.audit)
        self.relays = Relays(options.relay_dir)
        self.seats = Seats()
        self.review = Review(self.rules, self.people, self.seats)
        self.lifecycle = Lifecycle(self.rules, self.review, self.seats, self.relays)
        tunnel_socket = str(self.directory.path / TUNNEL_SOCKET)
        self.handover = Handover(
            self.records, self.relays, self.seats, self.lifecycle, self.audit, tunnel_socket
        )
        self.granting = Granting(self.grants, self.rules, self.people, self.review, self.audit)
        self.tunnel = Tunnel(self.rules, self.seats, self.audit)
        table = self._operations(options.grace, tunnel_socket)
        self.control = Control(table, self.people, self.admins, self.audit)

    def _operations(self, grace: int, tunnel_socket: str) -> Mapping[str, Operation]:
        """Every operation of control.sock, with what it requires of the asker."""
        opening = Opening(
            self.rules,
            self.people,
            self.seats,
            self.relays,
            self.lifecycle,
            self.records,
            self.audit,
            grace,
            tunnel_socket,
        )
        states = States()
        answers = Answers(self.rules, self.seats, states, self.audit)
        oversight = Oversight(self.seats, self.admins, self.audit)
        status = Status(self.maps, self.seats, self.relays, states, self.directory)
        mapped, granting = MapText(self.maps), self.granting
        return {
            "open": Operation(
                opening.open,
                afresh=True,
                a_minute=opening.opens_a_minute,
                at_once=opening.at_once,
            ),
            "resume": Operation(self.handover.resume, at_once=opening.at_once),
            "list": Operation(answers.list_vms),
            "whoami": Operation(answers.whoami),
            "rejected": Operation(answers.rejected),
            # Others than admins see their own.
            "sessions": Operation(oversight.sessions, a_minute=lambda: WATCHING),
            "map": Operation(mapped.map, for_admins=True, a_minute=lambda: MAPS_A_MINUTE),
            "kick": Operation(oversight.kick, for_admins=True),
            "status": Operation(status.status, for_admins=True, a_minute=lambda: WATCHING),
            "grant": Operation(granting.grant, for_admins=True),
            "revoke": Operation(granting.revoke, for_admins=True),
            "grants": Operation(granting.grants, for_admins=True),
        }
