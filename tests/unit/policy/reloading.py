"""What reading a map comes to, as something to compare: a reload is to change nothing of it."""

from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import MapReader, VmMap

#: A map's text, and those of its parts in vms.d.
Files = tuple[bytes, ...]


def outcome(reader: MapReader, files: Files) -> object:
    try:
        return said_by(parsed(reader, files))
    except MapError as error:
        return [(str(problem), problem.hint) for problem in error.problems]


def parsed(reader: MapReader, files: Files) -> VmMap:
    main, *parts = [(data, f"{number}.yaml") for number, data in enumerate(files)]
    return reader.parse(main, parts, [])


def said_by(vm_map: VmMap) -> object:
    """Everything it holds: values, order, what was written and what left out, and places."""
    vms = [
        (name, repr(vm), vm.model_fields_set, [(g.source, g.model_fields_set) for g in vm.allow])
        for name, vm in vm_map.vms.items()
    ]
    rest = vm_map.model_copy(update={"vms": {}})
    return repr(rest), vm_map.model_fields_set, vms


def check_reloads(*states: Files) -> None:
    """One reader sees these states one after the other, and says of each what a new one says."""
    reader = MapReader()
    for number, files in enumerate(states):
        assert outcome(reader, files) == outcome(MapReader(), files), f"state {number}"
