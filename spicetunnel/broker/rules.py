"""The rules in force: the map with the temporary grants, and decisions by them."""

from collections.abc import Callable
from datetime import UTC, datetime

from spicetunnel.broker.console import Console
from spicetunnel.broker.grants import Grants
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Asker
from spicetunnel.common.errors import NotPermittedError
from spicetunnel.policy.decide import Decision, decide
from spicetunnel.policy.temporary import TemporaryGrant, with_temporary
from spicetunnel.policy.vmmap import VmMap


class ClosedError(NotPermittedError):
    """The person's window is closed now, and opens in so many `seconds`."""

    def __init__(self, decision: Decision, seconds: float) -> None:
        super().__init__(decision.reason, decision.hint, decision.times)
        self.seconds = seconds


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Rules:
    """`now` is the clock; tests use another one."""

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
        self._merged: tuple[VmMap, tuple[TemporaryGrant, ...], VmMap] | None = None

    def current(self) -> VmMap:
        """The map in force, with the temporary grants: one request reads one such snapshot.

        Put together once for each state of the two.
        """
        vm_map, grants = self._maps.current, self._grants.current
        if not self._merged or self._merged[0] is not vm_map or self._merged[1] is not grants:
            self._merged = (vm_map, grants, with_temporary(vm_map, grants))
        return self._merged[2]

    def decide(self, vm_map: VmMap, asker: Asker, vm_name: str) -> Decision:
        """The decision on this person at this VM, here and now."""
        return decide(vm_map, asker.person, vm_name, asker.facts(self._console, self.now()))

    def require(self, vm_map: VmMap, asker: Asker, vm_name: str) -> Decision:
        """The decision, which allows. Raises NotPermittedError, ClosedError where time cures it."""
        decision = self.decide(vm_map, asker, vm_name)
        if decision.allow:
            return decision
        if decision.next:
            raise ClosedError(decision, (decision.next - self.now()).total_seconds())
        raise NotPermittedError(decision.reason, decision.hint, decision.times)
