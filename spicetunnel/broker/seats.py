"""Who is where: all sessions, by id. At most one for each SSH connection, one for each VM's seat.

A seat is held by the life of a session and nothing else.
"""

import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from spicetunnel.broker.peers import Anchor, Peer, lineage
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place
from spicetunnel.common.errors import BusyError, SpicetunnelError, UsageError


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

    def take(self, user: str, vm_name: str, *, wanted: bool, granted: bool) -> None:
        """Free the VM's seat for `user`, or raise BusyError.

        A held seat is taken only on request (`wanted`), and only from oneself or with the right to
        take over (`granted`). Whoever had it is cut off when this returns: QEMU sees the end of
        the old viewer before it sees the new one.
        """
        for session in self.at(vm_name):
            own = session.user == user
            may = granted or own
            if not (wanted and may):
                who = "you" if own else session.user
                reason = f"'{vm_name}' is in use by {who} since {_spoken(session.since)}"
                ask = f"ask {who} to leave, or try later"
                raise BusyError(reason, "--take-over ends that session" if may else ask)
        now = _spoken(datetime.now(UTC))
        for session in self.at(vm_name):
            if session.user == user:
                by, hint = "yourself, from another place,", "connect again to take it back"
            else:
                by, hint = user, "ask them, or connect again when they have left"
            reason = f"your seat at '{vm_name}' was taken over by {by} at {now}"
            session.revoke(BusyError(reason, hint))

    def add(self, session: Session) -> None:
        self._by_id[session.id] = self._by_anchor[session.anchor.pid] = session
        self._of_uid[session.asker.uid] += 1

    def remove(self, session: Session) -> None:
        del self._by_id[session.id]
        if self._by_anchor.get(session.anchor.pid) is session:
            del self._by_anchor[session.anchor.pid]
        self._of_uid[session.asker.uid] -= 1
        self._of_uid += Counter()  # forget the uids with none


def _spoken(moment: datetime) -> str:
    """The server's local time, with the weekday if it is not today."""
    local, today = moment.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%a %H:%M}"
