"""A good map, and what it is taken to say."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from spicetunnel.policy.problems import MapError, quote
from spicetunnel.policy.vmmap import Vm, VmMap, load_map, parse_map

MAP = """\
# The office
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: /var/lib/spicetunnel/vms/vm1.sock
    allow:
      - user: charlie
      - user: boss
        take-over: true
  lab-win:
    socket: /var/lib/spicetunnel/vms/lab-win.sock
    allow:
      - {group: students, take-over: no}
  spare:
    socket: /var/lib/spicetunnel/vms/spare.sock
"""


def read(text: str) -> VmMap:
    return parse_map(text.encode(), "vms.yaml")


def vm_with(line: str) -> Vm:
    return read(f"vms:\n  vm1:\n    socket: /run/vm1.sock\n    {line}\n").vms["vm1"]


def test_a_map_says_who_may_use_what(tmp_path: Path) -> None:
    path = tmp_path / "vms.yaml"
    path.write_text(MAP)
    vms = load_map(path).vms
    assert list(vms) == ["vm1", "lab-win", "spare"]
    assert vms["vm1"].title == "Windows 10, book-keeping"
    assert vms["vm1"].socket == "/var/lib/spicetunnel/vms/vm1.sock"
    allowed = [(grant.user, grant.group, grant.take_over) for grant in vms["vm1"].allow]
    assert allowed == [("charlie", None, False), ("boss", None, True)]
    assert vms["lab-win"].allow[0].group == "students"
    assert vms["lab-win"].allow[0].take_over is False
    assert vms["spare"].title == ""
    assert vms["spare"].allow == ()


def test_each_grant_knows_its_line(tmp_path: Path) -> None:
    vms = read(MAP).vms
    assert [grant.source for grant in vms["vm1"].allow] == ["vms.yaml:7", "vms.yaml:8"]
    assert [grant.source for grant in vms["lab-win"].allow] == ["vms.yaml:13"]
    path = tmp_path / "vms.yaml"
    path.write_text(MAP)
    assert load_map(str(path)).vms["vm1"].allow[0].source == f"{path}:7"


def test_a_map_does_not_change() -> None:
    grant = read(MAP).vms["vm1"].allow[0]
    with pytest.raises(ValidationError):
        grant.user = "mallory"  # type: ignore[misc]


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "'yes'"])
def test_take_over_may_be_said_in_each_of_yamls_ways(word: str) -> None:
    assert vm_with(f"allow: [{{user: ann, take-over: {word}}}]").allow[0].take_over is True


@pytest.mark.parametrize(
    "name",
    [
        "ann",
        "no",  # the Norway problem: a user, not a falsehood
        "null",
        "0x10",
        "1234567",
        "_apt",
        "ann.smith-2",
        "host01$",
        "ann@example.org",
        r"EXAMPLE\ann",
        "müller",
        "李",
        "a" * 255,
    ],
)
def test_user_and_group_names_of_all_account_databases(name: str) -> None:
    grants = vm_with(f"allow: [{{user: '{name}'}}, {{group: '{name}'}}]").allow
    assert (grants[0].user, grants[1].group) == (name, name)


@pytest.mark.parametrize(
    "name",
    ["", "-ann", ".ann", "@ann", "a b", "a\u00a0b", "a:b", "a/b", "a,b", "a*", "!a", "a$b", "%a"],
)
def test_names_that_could_be_taken_for_something_else(name: str) -> None:
    with pytest.raises(MapError):
        vm_with(f"allow: [{{user: '{name}'}}]")
    with pytest.raises(MapError):
        vm_with(f"allow: [{{group: '{name}'}}]")


@pytest.mark.parametrize("title", ["t" * 80, "é" * 80, "", 'VM: \\"new\\"', "日本語", "שלום"])
def test_titles(title: str) -> None:
    assert vm_with(f'title: "{title}"').title == title.replace("\\", "")


def test_a_socket_path_of_107_bytes_fits() -> None:
    path = "/run/" + "x" * 102
    assert read(f"vms: {{vm1: {{socket: {path}}}}}").vms["vm1"].socket == path
    with pytest.raises(MapError):
        read(f"vms: {{vm1: {{socket: {path}x}}}}")


def test_two_vms_share_a_socket_even_where_other_things_are_wrong() -> None:
    with pytest.raises(MapError) as refused:
        read("vms:\n  a: {socket: /s, x: y}\n  b: {socket: /s}\n  c: {socket: /s}\n")
    assert [problem.line for problem in refused.value.problems] == [2, 3, 4]


def test_the_error_in_one_line() -> None:
    with pytest.raises(MapError) as refused:
        read("vms:\n  b: {socket: b}\n  a: {socket: a}\n")
    error = refused.value
    assert error.reason == (
        "vms.yaml:2:15: 'socket' must be an absolute path, not 'b' (and 1 more)"
    )
    assert error.exit_code == 78


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ann", "'ann'"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("x" * 61, f"'{'x' * 57}...'"),
        ("a\x1b[2J\n\x9b\u202e\ud800", r"'a\x1b[2J\n\x9b\u202e\ud800'"),
        ("\0" * 1000, "'" + (r"\x00" * 15)[:57] + "...'"),
    ],
)
def test_what_comes_from_outside_is_shown_on_one_short_line(text: str, shown: str) -> None:
    assert quote(text) == shown
