"""What happens to a session whose VM closes the main channel: the VM stopped, or restarts."""

import asyncio

from spicetunnel.broker.rules import Rules
from spicetunnel.broker.sessions import Session
from spicetunnel.broker.vm import Place, password_of, running_at
from spicetunnel.common.errors import BusyError, NotRunningError, SpicetunnelError

CHECKS = (0.0, 0.3, 1.0)  # seconds: a dying QEMU may close its channels before its socket
POLL = 0.5  # seconds between two looks whether it is back
GRACE = 60.0  # seconds a VM may take for its restart


async def follow_vm(session: Session, rules: Rules) -> None:
    """Loop: each time the VM is lost, wait for its restart or end the session."""
    while True:
        await session.vm_lost.wait()
        session.vm_lost.clear()
        await _after_loss(session, rules)


async def _after_loss(session: Session, rules: Rules) -> None:
    name, lost = session.vm_name, session.place
    for pause in CHECKS:
        await asyncio.sleep(pause)
        now = running_at(lost.socket)
        if not now:
            await _stopped(session, rules)
            return
        if now != lost.born:
            _welcome_back(session, rules, now)
            return
    if session.keep:
        # It runs, but closed our connection: another viewer has connected without us.
        hint = "another viewer may have opened it past spicetunnel; the admin knows"
        session.revoke(BusyError(f"'{name}' closed the connection", hint))


async def _stopped(session: Session, rules: Rules) -> None:
    name = session.vm_name
    if session.keep:
        session.log("vm", state="off")
        session.tell("waiting", f"'{name}' has stopped; waiting {GRACE:.0f} s for its restart")
        for _ in range(int(GRACE / POLL)):
            await asyncio.sleep(POLL)
            if now := running_at(session.place.socket):
                _welcome_back(session, rules, now)
                return
    session.revoke(NotRunningError(f"'{name}' has stopped", "connect again when it runs"))


def _welcome_back(session: Session, rules: Rules, born: str) -> None:
    session.place = Place(session.place.socket, born)
    session.update_record()
    if session.keep:
        session.log("vm", state="back")
        _ready_again(session, rules)


def _ready_again(session: Session, rules: Rules) -> None:
    name = session.vm_name
    vm = rules.current().vms.get(name)
    try:
        password = password_of(name, vm, session.audit)
    except SpicetunnelError as error:
        session.revoke(error)
        return
    session.ready(vm.title if vm else "", password)
