"""Who is where: all sessions, by id. At most one for each SSH connection, one for each VM's seat.

A seat is held by the life of a session and nothing else.
"""

import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from spicetunnel.broker.peers import Anchor, Peer, lineage
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place
from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError
from spicetunnel.policy.moments import clock


class Claim(NamedTuple):
    """Who wants the seat of which VM, whose zone this is.

    `wanted`: also from who has it; `granted`: the person has the right to that. `replaced`: the id
    of a session of theirs that ends for this one; empty for none.
    """

    user: str
    vm_name: str
    zone: ZoneInfo
    wanted: bool
    granted: bool
    replaced: str = ""


class SeatTakenError(BusyError):
    """Somebody has the VM's seat."""


class Seats:
    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._by_anchor: dict[int, Session] = {}  # the last one on each SSH connection, by its pid
        self._of_uid: Counter[int] = Counter()

    def __iter__(self) -> Iterator[Session]:
        """The live sessions."""
        return iter([each for each in self._by_id.values() if each.is_live])

    def new_id(self) -> str:
        """An id that no session has."""
        while (drawn := secrets.token_hex(4)) in self._by_id:
            pass
        return drawn

    def get(self, session_id: str) -> Session | None:
        """The session of that id, also if it has just ended."""
        return self._by_id.get(session_id)

    def of(self, peer: Peer) -> Session | None:
        """The session on the SSH connection of the peer's process, if it is the same user's."""
        for pid in lineage(peer):
            session = self.on(pid)
            if session is not None and session.asker.uid == peer.uid:
                return session
        return None

    def on(self, pid: int) -> Session | None:
        """The live session on the SSH connection whose sshd process this is."""
        session = self._by_anchor.get(pid)
        return session if session is not None and session.is_live else None

    def has_session(self, uid: int) -> bool:
        """Whether there is a session of that uid, which may be ending."""
        return uid in self._of_uid

    def at(self, vm_name: str) -> list[Session]:
        """The sessions at the VM; several if its seat is shared."""
        return [each for each in self if each.vm_name == vm_name]

    def users(self) -> dict[str, set[str]]:
        """Who is at which VM."""
        found: dict[str, set[str]] = {}
        for session in self:
            found.setdefault(session.vm_name, set()).add(session.user)
        return found

    def require_room(self, user: str, limit: int) -> None:
        """Raises BusyError if this person has as many sessions as the map allows."""
        if sum(each.user == user for each in self) >= limit:
            raise BusyError(f"you have {limit} sessions already", "end one of them first")

    def require_free_connection(self, anchor: Anchor) -> None:
        """Raises UsageError if the SSH connection has a session already."""
        held = self.on(anchor.pid)
        if held is not None:
            raise UsageError(
                f"this SSH connection has a session at '{held.vm_name}' already",
                "open another connection for another VM: ssh -o ControlPath=none",
            )

    def require_own_socket(self, vm_name: str, place: Place) -> None:
        """Raises SpicetunnelError if this socket is at the same time that of another VM's session:
        a QEMU may have linked it into its own directory.
        """
        for other in self:
            if other.vm_name != vm_name and other.place.born == place.born != "":
                other.log("fault", reason=f"the socket of '{vm_name}' is that of this VM too")
                raise SpicetunnelError(
                    f"the console of '{vm_name}' cannot be told from another one",
                    "tell the admin: two VMs have one socket",
                )

    def replace(self, user: str, vm_name: str, session_id: str) -> None:
        """End the session of that id, if it is this person's own at this VM."""
        for session in self.at(vm_name):
            if (session.id, session.user) == (session_id, user):
                session.revoke(BusyError(f"you have connected to '{vm_name}' again"))

    def require_seat(self, claim: Claim) -> None:
        """Raises SeatTakenError if the seat cannot be had now.

        A held seat is taken only on request, and only from oneself or with the right to take over.
        """
        for session in self.at(claim.vm_name):
            is_own = session.user == claim.user
            if claim.wanted and (claim.granted or is_own):
                continue
            if is_own and session.id == claim.replaced:
                continue
            who = "you" if is_own else session.user
            since = clock(session.since, claim.zone, datetime.now(UTC))
            reason = f"'{claim.vm_name}' is in use by {who} since {since.words}"
            ask = f"ask {who} to leave, or wait for it: spice-connect --wait"
            hint = "--take-over ends that session" if claim.granted or is_own else ask
            raise SeatTakenError(reason, hint, since.times)

    def take(self, claim: Claim) -> None:
        """Free the VM's seat, or raise SeatTakenError.

        Whoever had it is cut off when this returns: QEMU sees the end of the old viewer before it
        sees the new one.
        """
        self.require_seat(claim)
        now = datetime.now(UTC)
        at = clock(now, claim.zone, now)
        for session in self.at(claim.vm_name):
            if session.user == claim.user:
                by, hint = "yourself, from another place,", "connect again to take it back"
            else:
                by, hint = claim.user, "ask them, or connect again when they have left"
            reason = f"your seat at '{claim.vm_name}' was taken over by {by} at {at.words}"
            session.revoke(BusyError(reason, hint, at.times))

    def add(self, session: Session) -> None:
        self._by_id[session.id] = self._by_anchor[session.anchor.pid] = session
        self._of_uid[session.asker.uid] += 1

    def remove(self, session: Session) -> None:
        del self._by_id[session.id]
        if self._by_anchor.get(session.anchor.pid) is session:
            del self._by_anchor[session.anchor.pid]
        self._of_uid[session.asker.uid] -= 1
        self._of_uid += Counter()  # forget the uids with none
