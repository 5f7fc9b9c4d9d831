"""The privilege boundary is what the tree shows: who may import whom, read from the source."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Each part, and the parts of ours it may import besides itself.
ALLOWED = {
    "spicetunnel/common": set[str](),
    "spicetunnel/spice": set[str](),
    "spicetunnel/gate": {"spicetunnel.common"},
    "spicetunnel/relay": {"spicetunnel.common", "spicetunnel.spice"},
    "spicetunnel/policy": {"spicetunnel.common", "spicetunnel.spice"},
    "spicetunnel/broker": {"spicetunnel.common", "spicetunnel.policy", "spicetunnel.spice"},
    "spicetunnel/admin": {"spicetunnel.common", "spicetunnel.policy"},
    "client/spice_connect": set[str](),
}
#: The gate and the relay have a process per session: nothing but the standard library, and nothing
#: heavy.
STANDARD_LIBRARY_ONLY = ("spicetunnel/gate", "spicetunnel/relay", "spicetunnel/common")
HEAVY = {"asyncio", "dataclasses", "typing", "subprocess", "logging", "argparse", "pathlib"}
#: The relay's parent starts once a boot.
MAY_BE_HEAVY = {"spicetunnel/relay": {"argparse"}}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            found.add(node.module or "")
    return found


def part_of(module: str) -> str:
    """`spicetunnel.gate` for `spicetunnel.gate.relay`; the top name for everything else."""
    words = module.split(".")
    return ".".join(words[:2]) if words[0] == "spicetunnel" else words[0]


def files(part: str) -> list[Path]:
    found = sorted((ROOT / part).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_part_imports_only_what_it_may(part: str) -> None:
    itself = part.removeprefix("client/").replace("/", ".")
    ours = {part_of(module) for file in files(part) for module in imports(file)}
    ours = {module for module in ours if module.split(".")[0] in {"spicetunnel", "spice_connect"}}
    assert ours <= ALLOWED[part] | {itself, "spicetunnel"}
    if part.startswith("client"):
        assert "spicetunnel" not in ours


#: The client's folders: each may use those before it, and what lies beside all of them.
CLIENT_FLOORS = ("ui", "tunnel", "viewer", "vms")


@pytest.mark.parametrize("floor", CLIENT_FLOORS)
def test_data_goes_one_way_in_the_client(floor: str) -> None:
    used = {module for file in files(f"client/spice_connect/{floor}") for module in imports(file)}
    above = set(CLIENT_FLOORS[CLIENT_FLOORS.index(floor) + 1 :]) | {
        "session",
        "reconnect",
        "options",
        "cli",
    }
    ours = {module.split(".")[1] for module in used if module.startswith("spice_connect.")}
    assert not ours & above


@pytest.mark.parametrize("part", STANDARD_LIBRARY_ONLY)
def test_what_runs_once_a_session_stays_light(part: str) -> None:
    tops = {module.split(".")[0] for file in files(part) for module in imports(file)}
    assert tops <= set(sys.stdlib_module_names) | {"spicetunnel"}
    assert not tops & (HEAVY - MAY_BE_HEAVY.get(part, set()))


def test_what_the_relay_reads_spice_with_stays_light() -> None:
    """Its modules of spicetunnel/spice, and theirs: the broker's may be heavy."""
    used: set[str] = set()
    found = {module for file in files("spicetunnel/relay") for module in imports(file)}
    while new := {module for module in found if module.startswith("spicetunnel.spice.")} - used:
        used |= new
        found = {x for each in new for x in imports(ROOT / f"{each.replace('.', '/')}.py")}
        tops = {module.split(".")[0] for module in found}
        assert tops <= set(sys.stdlib_module_names) | {"spicetunnel"}
        assert not tops & HEAVY
    assert "spicetunnel.spice.mainfilter" in used
    assert "spicetunnel.spice.link" not in used


def test_nothing_runs_a_shell() -> None:
    """Argument lists only, in every part."""
    for part in ALLOWED:
        for file in files(part):
            source = file.read_text()
            for word in (
                "shell=True",
                "os.system",
                "os.popen",
                "getoutput",
                "create_subprocess_shell",
            ):
                assert word not in source, f"{file}: {word}"


def test_every_part_of_the_tree_is_named_here() -> None:
    parts = {
        f"spicetunnel/{path.name}" for path in (ROOT / "spicetunnel").iterdir() if path.is_dir()
    }
    assert parts - {"spicetunnel/__pycache__"} | {"client/spice_connect"} == set(ALLOWED)
