"""What happens to a session whose VM closes the main channel: the VM stopped, or restarts."""

import asyncio

from spicetunnel.broker.password import password_of
from spicetunnel.broker.rules import Rules
from spicetunnel.broker.seats import Seats
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place, UnreachableError, require_running
from spicetunnel.common.errors import BusyError, NotRunningError, SpicetunnelError

CHECKS = (0.0, 0.3, 1.0)  # seconds: a dying QEMU may close its channels before its socket
POLL = 0.5  # seconds between two looks whether it is back
GRACE = 60.0  # seconds a VM may take for its restart
SETTLE = 5.0  # seconds for a new socket to get its owner and mode, which QEMU's starter sets later


async def follow_vm(session: Session, rules: Rules, seats: Seats) -> None:
    """Loop: each time the VM is lost, wait for its restart or end the session."""
    while True:
        await session.vm_lost.wait()
        session.vm_lost.clear()
        try:
            back = await _after_loss(session)
            if back is not None:
                _welcome_back(session, rules, seats, back)
        except SpicetunnelError as error:
            session.revoke(error)


async def _after_loss(session: Session) -> Place | None:
    """Where the VM runs again, or still, where it was us who cut its channel; None if it never
    stopped. Raises SpicetunnelError if it is gone.
    """
    name, lost = session.vm_name, session.place
    renewing, session.renewing = session.renewing, False
    for pause in CHECKS:
        await asyncio.sleep(pause)
        try:
            now = require_running(name, lost.socket)
        except NotRunningError:
            return await _restarted(session)
        except UnreachableError:
            return await _reachable(session)
        if renewing or now.born != lost.born:
            return now
    if session.keep:
        # It runs, but closed our connection: another viewer has connected without us.
        hint = "another viewer may have opened it past spicetunnel; the admin knows"
        raise BusyError(f"'{name}' closed the connection", hint)
    return None


async def _restarted(session: Session) -> Place:
    """Where the VM runs, after its restart. Raises NotRunningError, or UnreachableError."""
    name = session.vm_name
    stopped = NotRunningError(f"'{name}' has stopped", "connect again when it runs")
    if not session.keep:
        raise stopped
    session.log("vm", state="off")
    session.tell("waiting", f"'{name}' has stopped; waiting {GRACE:.0f} s for its restart")
    for _ in range(int(GRACE / POLL)):
        await asyncio.sleep(POLL)
        try:
            return require_running(name, session.place.socket)
        except NotRunningError:
            continue
        except UnreachableError:
            return await _reachable(session)
    raise stopped


async def _reachable(session: Session) -> Place:
    """Where the VM runs, when its socket has its rights. Raises UnreachableError if it gets none,
    and NotRunningError.
    """
    for _ in range(int(SETTLE / POLL)):
        await asyncio.sleep(POLL)
        try:
            return require_running(session.vm_name, session.place.socket)
        except UnreachableError:
            continue
    return require_running(session.vm_name, session.place.socket)


def _welcome_back(session: Session, rules: Rules, seats: Seats, now: Place) -> None:
    """Raises SpicetunnelError if the person cannot go on."""
    seats.require_own_socket(session.vm_name, now)
    has_restarted = now != session.place
    session.place = now
    session.update_record()
    if session.keep:
        if has_restarted:
            session.log("vm", state="back")
        vm = rules.current().vms.get(session.vm_name)
        password = password_of(session.vm_name, vm, session.audit)
        session.ready(vm.title if vm else "", password)
