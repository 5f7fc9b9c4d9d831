"""A map in several files: vms.yaml, and vms.d/*.yaml beside it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import load_map, map_files

Write = Callable[[str, str], Path]

MAIN = """\
timezone: Europe/Berlin
people:
  tutors: [user: ann]
vms:
  vm1:
    socket: /run/vm1.sock
    allow: [people: interns]
"""
LAB = """\
people:
  interns: [user: bob]
vms:
  lab1:
    socket: /run/lab1.sock
    allow:
      - people: tutors
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "vms.yaml"
    path.write_text(MAIN)
    (tmp_path / "vms.d").mkdir()
    (tmp_path / "vms.d" / "lab.yaml").write_text(LAB)
    return path


def add(main: Path, name: str, text: str) -> Path:
    path = main.parent / "vms.d" / name
    path.write_text(text)
    return path


def said_of(main: Path) -> list[str]:
    """Each problem, then its hint; paths are relative to the map's directory."""
    with pytest.raises(MapError) as refused:
        load_map(main)
    said = [each for problem in refused.value.problems for each in (str(problem), problem.hint)]
    return [line.replace(f"{main.parent}/", "") for line in said if line]


def test_the_files_make_one_map(main: Path) -> None:
    add(main, "office.yaml", "vms: {vm3: {socket: /run/vm3.sock, timezone: UTC}}")
    vm_map = load_map(main)
    assert list(vm_map.vms) == ["vm1", "lab1", "vm3"]
    assert sorted(vm_map.people) == ["interns", "tutors"]
    assert str(vm_map.zone_of(vm_map.vms["lab1"])) == "Europe/Berlin"
    assert str(vm_map.zone_of(vm_map.vms["vm3"])) == "UTC"


def test_people_are_known_in_every_file(main: Path) -> None:
    vm_map = load_map(main)
    for vm, user in [("vm1", "bob"), ("lab1", "ann")]:
        assert vm_map.names(vm_map.vms[vm].allow[0], 1000, user, frozenset())


def test_a_grant_knows_its_file(main: Path) -> None:
    vms = load_map(main).vms
    assert vms["vm1"].allow[0].source == f"{main}:7"
    assert vms["lab1"].allow[0].source == f"{main.parent}/vms.d/lab.yaml:7"


def test_parts_are_sorted_and_other_files_left_out(main: Path) -> None:
    for name in ("20.yaml", "10.yaml", "x.yml", "x.yaml~", ".hidden.yaml", "README"):
        add(main, name, "not: read")
    (main.parent / "vms.d" / ".#lock.yaml").symlink_to("nowhere")
    names = [os.path.relpath(each, main.parent) for each in map_files(main)]
    assert names == ["vms.yaml", "vms.d/10.yaml", "vms.d/20.yaml", "vms.d/lab.yaml"]


def test_map_without_parts(tmp_path: Path) -> None:
    path = tmp_path / "vms.yaml"
    assert map_files(path) == [str(path)]
    (tmp_path / "vms.d").write_text("a file")
    assert map_files(path) == [str(path)]


def test_main_file_without_vms(main: Path) -> None:
    main.write_text("timezone: UTC\npeople: {tutors: [user: ann]}\n")
    assert list(load_map(main).vms) == ["lab1"]


def test_a_part_can_be_read_alone(main: Path) -> None:
    """As with `spicetunnel check FILE`: the name of its directory does not make it a part."""
    path = add(main, "office.yaml", "vms: {vm3: {socket: /run/vm3.sock}}")
    assert list(load_map(path).vms) == ["vm3"]


def test_a_vm_defined_twice(main: Path) -> None:
    add(main, "office.yaml", "vms:\n  vm1: {socket: /run/a.sock}\n  lab1: {socket: /run/b.sock}\n")
    assert said_of(main) == [
        "vms.d/office.yaml:2:3: vm 'vm1' is defined twice, first at vms.yaml:5",
        "keep one of the two",
        "vms.d/office.yaml:3:3: vm 'lab1' is defined twice, first at vms.d/lab.yaml:4",
        "keep one of the two",
    ]


def test_a_vm_defined_three_times(main: Path) -> None:
    for name in ("x.yaml", "y.yaml"):
        add(main, name, f"vms: {{vm1: {{socket: /run/{name}}}}}")
    twice = "vm 'vm1' is defined twice, first at vms.yaml:5"
    assert said_of(main)[::2] == [f"vms.d/x.yaml:1:7: {twice}", f"vms.d/y.yaml:1:7: {twice}"]


def test_people_named_twice(main: Path) -> None:
    add(main, "office.yaml", "people:\n  tutors: [user: eve]\n")
    assert said_of(main) == [
        "vms.d/office.yaml:2:3: people 'tutors' is defined twice, first at vms.yaml:3",
        "keep one of the two",
    ]


def test_a_socket_shared_across_files(main: Path) -> None:
    add(main, "office.yaml", "vms:\n  vm3:\n    socket: /run/vm1.sock\n")
    assert said_of(main) == [
        "vms.d/office.yaml:3:13: vm 'vm1' has the same socket (vms.yaml:6)",
        "give each vm a socket of its own",
    ]


@pytest.mark.parametrize(("key", "value"), [("timezone", "UTC"), ("delegates", "[sshd]")])
def test_settings_of_the_whole_map_are_refused_in_a_part(main: Path, key: str, value: str) -> None:
    add(main, "office.yaml", f"{key}: {value}\nvms: {{}}\n")
    assert said_of(main) == [
        f"vms.d/office.yaml:1:1: '{key}' belongs in the main file, not in vms.d",
        "move it to vms.yaml",
    ]


def test_an_unknown_key_of_a_part(main: Path) -> None:
    add(main, "office.yaml", "time-zone: UTC\nvms: {}\n")
    assert said_of(main) == [
        "vms.d/office.yaml:1:1: unknown key 'time-zone' in the map",
        "known keys: people, vms",
    ]


def test_unknown_people_of_a_part(main: Path) -> None:
    add(main, "office.yaml", "vms: {vm3: {socket: /s, allow: [people: tutor]}}")
    assert said_of(main) == [
        "vms.d/office.yaml:1:41: there are no people 'tutor'",
        "did you mean 'tutors'?",
    ]


def test_an_empty_part(main: Path) -> None:
    add(main, "office.yaml", "# nothing yet\n")
    assert said_of(main) == [
        "vms.d/office.yaml:1:1: the map is empty",
        "write 'vms: {}' for a map without VMs",
    ]


def test_problems_of_all_files_are_reported_at_once(main: Path) -> None:
    main.write_text(MAIN.replace("/run/vm1", "run/vm1"))
    add(main, "lab.yaml", LAB.replace("lab1:", "lab 1:"))
    add(main, "office.yaml", "vms: [")
    add(main, "secret.yaml", "vms: {}").chmod(0o666)
    said = said_of(main)
    places = [line.split(" ")[0] for line in said if line.startswith("vms.")]
    assert places == [
        "vms.d/lab.yaml:4:3:",
        "vms.d/office.yaml:1:1:",
        "vms.d/secret.yaml:",
        "vms.yaml:6:13:",
    ]


def test_part_that_others_may_write_is_refused(main: Path) -> None:
    (main.parent / "vms.d").chmod(0o777)
    assert said_of(main) == [
        "vms.d/lab.yaml: lies in vms.d, which others may write to",
        "chmod go-w vms.d",
    ]


def test_missing_part(main: Path) -> None:
    (main.parent / "vms.d" / "gone.yaml").symlink_to("nowhere")
    assert said_of(main) == [
        "vms.d/gone.yaml: cannot be read: no such file or directory",
        "create the file, or correct its path",
    ]


def test_a_directory_of_parts_that_this_user_may_not_read(main: Path) -> None:
    directory = main.parent / "vms.d"
    directory.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 54321)
    try:
        with pytest.raises(MapError, match=r"vms\.d: cannot be read: permission denied") as refused:
            map_files(main)
    finally:
        os.seteuid(user)
    assert refused.value.exit_code == os.EX_NOINPUT
