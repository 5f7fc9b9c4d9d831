"""The rules in force: the map, what else is granted, and the decision on a person at a VM, now."""

from collections.abc import Callable
from datetime import UTC, datetime

from spicetunnel.broker.console import Console
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Asker
from spicetunnel.common.errors import NotPermittedError
from spicetunnel.policy.decide import Decision, decide
from spicetunnel.policy.vmmap import VmMap


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Rules:
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

    def current(self) -> VmMap:
        """The map in force, with the temporary grants: one request reads one such snapshot."""
        return self._grants.onto(self._maps.current)

    def decide(self, vm_map: VmMap, asker: Asker, vm_name: str) -> Decision:
        """The decision on this person at this VM, here and now."""
        return decide(vm_map, asker.person, vm_name, asker.facts(self._console, self.now()))

    def require(self, vm_map: VmMap, asker: Asker, vm_name: str) -> Decision:
        """The decision, which allows. Raises NotPermittedError."""
        decision = self.decide(vm_map, asker, vm_name)
        if not decision.allow:
            raise NotPermittedError(decision.reason, decision.hint)
        return decision
