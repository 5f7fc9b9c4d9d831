"""Who is where: at most one session for each SSH connection, and one for each VM's seat.

A seat is held by the life of a session and nothing else.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

from spicetunnel.broker.orphans import Orphans
from spicetunnel.broker.peers import Anchor, Peer, lineage
from spicetunnel.broker.sessions import Session
from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError


class Holder(Protocol):
    """Who has a seat: a session of ours, or one of a broker before us."""

    @property
    def id(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def vm_name(self) -> str: ...
    @property
    def since(self) -> datetime: ...
    @property
    def is_live(self) -> bool: ...
    def revoke(self, error: SpicetunnelError) -> None: ...


class Seats:
    def __init__(self, orphans: Orphans) -> None:
        self._orphans = orphans
        self._by_anchor: dict[int, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_anchor.values()))

    def of(self, peer: Peer) -> Session | None:
        """The session whose SSH connection the peer's process belongs to, and whose user it is."""
        for pid in lineage(peer):
            session = self._by_anchor.get(pid)
            if session is not None and session.asker.uid == peer.uid and session.is_live:
                return session
        return None

    def holders(self) -> list[Holder]:
        """All that are live."""
        both: list[Holder] = [*self, *self._orphans]
        return [each for each in both if each.is_live]

    def at(self, vm_name: str) -> list[Holder]:
        """Who holds the VM's seat; several where it is shared."""
        return [each for each in self.holders() if each.vm_name == vm_name]

    def require_room(self, user: str, limit: int) -> None:
        """Raises BusyError where this person has as many sessions as the map lets anybody have."""
        if sum(each.user == user for each in self.holders()) >= limit:
            raise BusyError(f"you have {limit} sessions already", "end one of them first")

    def require_free_connection(self, anchor: Anchor) -> None:
        """Raises UsageError where the SSH connection has a session already."""
        held = self._by_anchor.get(anchor.pid)
        if held is not None and held.is_live:
            raise UsageError(
                f"this SSH connection has a session at '{held.vm_name}' already",
                "open another connection for another VM: ssh -o ControlPath=none",
            )

    def replace(self, user: str, vm_name: str, session_id: str) -> None:
        """End the session of that id, if it is this person's own at this VM: they come again."""
        for holder in self.at(vm_name):
            if (holder.id, holder.user) == (session_id, user):
                holder.revoke(BusyError(f"you have connected to '{vm_name}' again"))

    def take(self, user: str, vm_name: str, *, wanted: bool, granted: bool) -> None:
        """Free the VM's seat for `user`, or raise BusyError.

        A held seat is taken only on request (`wanted`), and only from oneself or with the right to
        take over (`granted`). Whoever had it is cut off when this returns: QEMU sees the end of
        the old viewer before it sees the new one.
        """
        for holder in self.at(vm_name):
            own = holder.user == user
            may = granted or own
            if not (wanted and may):
                who = "you" if own else holder.user
                reason = f"'{vm_name}' is in use by {who} since {_spoken(holder.since)}"
                ask = f"ask {who} to leave, or try later"
                raise BusyError(reason, "--take-over ends that session" if may else ask)
        for holder in self.at(vm_name):
            now = _spoken(datetime.now(UTC))
            reason = f"your seat at '{vm_name}' was taken over by {user} at {now}"
            holder.revoke(BusyError(reason, "ask them, or connect again when they have left"))

    def add(self, session: Session) -> None:
        self._by_anchor[session.anchor.pid] = session

    def remove(self, session: Session) -> None:
        if self._by_anchor.get(session.anchor.pid) is session:
            del self._by_anchor[session.anchor.pid]


def _spoken(moment: datetime) -> str:
    """On the server's clock; with the day, where it is not today."""
    local, today = moment.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%a %H:%M}"
