"""Brings the decision and what it needs together: the map in force, the person, the place, now."""

from collections.abc import Callable
from datetime import UTC, datetime

from spicetunnel.broker.console import Console
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Asker
from spicetunnel.common.errors import NotPermittedError
from spicetunnel.policy.decide import Decision, decide, visible
from spicetunnel.policy.vmmap import Vm, VmMap


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Judge:
    """`now` is the clock; another one in tests."""

    def __init__(
        self,
        maps: MapStore,
        grants: Grants,
        console: Console,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._maps = maps
        self._grants = grants
        self._console = console
        self.now = now

    @property
    def map(self) -> VmMap:
        """The map in force, with what else is granted."""
        return self._grants.onto(self._maps.current)

    def decide(self, asker: Asker, vm_name: str) -> Decision:
        """The decision on this person at this VM, here and now."""
        facts = asker.facts(self._console, self.now())
        return decide(self.map, asker.person, vm_name, facts)

    def require(self, asker: Asker, vm_name: str) -> Decision:
        """The decision, which allows. Raises NotPermittedError."""
        decision = self.decide(asker, vm_name)
        if not decision.allow:
            raise NotPermittedError(decision.reason, decision.hint)
        return decision

    def vm(self, name: str) -> Vm:
        """Raises KeyError where the map has none of that name."""
        return self.map.vms[name]

    def title(self, name: str) -> str:
        vm = self.map.vms.get(name)
        return vm.title if vm else ""

    def visible(self, asker: Asker) -> list[tuple[str, Vm]]:
        """The VMs this person may use at some time or place, by name."""
        return visible(self.map, asker.person)
