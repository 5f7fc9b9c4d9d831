"""A gate's wish to open a VM, and the wait until that can be."""

from dataclasses import dataclass
from typing import Self

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.connection import GateConnection, with_times
from spicetunnel.broker.people import Asker, People
from spicetunnel.broker.rules import ClosedError, Rules
from spicetunnel.broker.seats import Claim, Seats, SeatTakenError
from spicetunnel.broker.vm import Place, find
from spicetunnel.common.errors import NotRunningError, ProtocolError, SpicetunnelError
from spicetunnel.common.names import is_session_id, is_vm_name
from spicetunnel.common.protocol import Message, flag, text
from spicetunnel.policy.decide import Decision
from spicetunnel.policy.vmmap import VmMap

WAIT_POLL = 1.0  # seconds between two looks at a VM that is waited for
CLOSED_POLL = 10.0  # the same while the person's window is closed: a map may open it at any time


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of an `open`: docs/protocol.md, section 1."""

    vm: str
    take_over: bool
    wait: bool
    keep: bool
    replace: str

    @classmethod
    def of(cls, request: Message) -> Self:
        """Raises ProtocolError."""
        vm, replace = text(request, "vm"), text(request, "replace", "")
        if not is_vm_name(vm):
            raise ProtocolError("'vm' is not a VM's name")
        if replace and not is_session_id(replace):
            raise ProtocolError("'replace' is not a session's id")
        return cls(
            vm=vm,
            take_over=flag(request, "take_over"),
            wait=flag(request, "wait"),
            keep=flag(request, "keep"),
            replace=replace,
        )

    def claim(self, user: str, vm_map: VmMap, decision: Decision) -> Claim:
        zone = vm_map.zone_of(vm_map.vms[self.vm])
        return Claim(user, self.vm, zone, self.take_over, decision.take_over, self.replace)


class Waiting:
    """A gate's wait until its VM can be opened: it runs, its seat is free, the window is open.

    Who does not ask to wait is refused at once.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        gate: GateConnection,
        asker: Asker,
        wish: Wish,
        rules: Rules,
        people: People,
        seats: Seats,
        audit: Audit,
    ) -> None:
        self._gate, self._asker, self._wish = gate, asker, wish
        self._rules, self._people, self._seats, self._audit = rules, people, seats, audit
        self._told: type[SpicetunnelError] | None = None  # what is waited for, as told last

    async def until_openable(self) -> tuple[Asker, Place]:
        """The person, looked up again if there was a wait, and where the VM runs.

        Raises SpicetunnelError if it is refused, or the gate leaves.
        """
        while True:
            pause = WAIT_POLL
            try:
                return self._asker, await self._place()
            except NotRunningError as error:
                self._tell(error, "waiting for it to start")
            except SeatTakenError as error:
                self._tell(error, "waiting for it to be free")
            except ClosedError as error:
                self._tell(error, f"waiting: {error.hint}")
                pause = min(max(WAIT_POLL, error.seconds), CLOSED_POLL)
            if await self._gate.leaves_within(pause):
                raise SpicetunnelError("the client left while it waited")
            self._asker = await self._people.again(self._asker)

    async def _place(self) -> Place:
        """Where the VM runs. Raises SpicetunnelError if it cannot be opened now."""
        wish, rules, asker = self._wish, self._rules, self._asker
        vm_map = rules.current()
        decision = rules.require(vm_map, asker, wish.vm)
        vm = vm_map.vms[wish.vm]
        if wish.wait and vm.seat == "exclusive":
            self._seats.require_seat(wish.claim(asker.person.user, vm_map, decision))
        try:
            return await find(wish.vm, vm.socket)
        except NotRunningError as error:
            hint = "spice-connect --wait waits for it"
            raise NotRunningError(error.reason, hint) from None

    def _tell(self, why: SpicetunnelError, wait: str) -> None:
        """Tell the person what is waited for, when that is another thing than before.

        Raises `why` if they do not want to wait.
        """
        if not self._wish.wait:
            raise why
        if self._told is type(why):
            return
        first, self._told = self._told is None, type(why)
        event: Message = {"event": "waiting", "reason": f"{why.reason}; {wait}"}
        self._gate.send({**event, "hint": "Ctrl-C ends the waiting", **with_times(why.times)})
        if first:  # one line of the log for each wait, however often its reason changes
            about = {"pid": self._gate.peer.pid, **self._asker.fields, "reason": why.reason}
            self._audit.write("waiting", vm=self._wish.vm, **about)
