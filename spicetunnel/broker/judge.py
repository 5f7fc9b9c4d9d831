"""Brings the decision and what it needs together: the map in force, the person, the place, now."""

from spicetunnel.broker.console import Console
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import Asker
from spicetunnel.policy.decide import Decision, decide, visible
from spicetunnel.policy.vmmap import Vm


class Judge:
    def __init__(self, maps: MapStore, console: Console) -> None:
        self._maps = maps
        self._console = console

    def decide(self, asker: Asker, vm_name: str) -> Decision:
        """The map's decision on this person at this VM, here and now."""
        return decide(self._maps.current, asker.person, vm_name, asker.facts(self._console))

    def vm(self, name: str) -> Vm:
        """Raises KeyError where the map has none of that name."""
        return self._maps.current.vms[name]

    def visible(self, asker: Asker) -> list[tuple[str, Vm]]:
        """The VMs this person may use at some time or place, by name."""
        return visible(self._maps.current, asker.person)
