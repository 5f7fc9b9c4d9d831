"""Who may use what: the office of docs, before it had schedules."""

import pytest

from spicetunnel.policy.decide import Identity, decide, visible
from spicetunnel.policy.vmmap import parse_map

OFFICE = parse_map(
    b"""\
vms:
  vm1:
    title: Windows 10, book-keeping
    socket: /run/vm1.sock
    allow:
      - user: charlie
      - user: boss
        take-over: true
  vm2:
    socket: /run/vm2.sock
    allow:
      - user: maggie
      - user: anne
  vm3:
    socket: /run/vm3.sock
    allow:
      - user: ralph
  lab-win:
    socket: /run/lab-win.sock
    allow:
      - group: students
      - group: staff
      - {group: tutors, take-over: true}
  nobodys:
    socket: /run/nobodys.sock
""",
    "vms.yaml",
)


def person(user: str, *groups: str, uid: int = 1000) -> Identity:
    return Identity(uid, user, frozenset(groups))


ALLOWED = [
    (person("charlie"), "vm1", "vms.yaml:6", False),
    (person("boss"), "vm1", "vms.yaml:7", True),
    (person("maggie", "users"), "vm2", "vms.yaml:12", False),
    (person("anne"), "vm2", "vms.yaml:13", False),
    (person("ralph"), "vm3", "vms.yaml:17", False),
    (person("lisa", "students"), "lab-win", "vms.yaml:21", False),
    (person("lisa", "students", "staff"), "lab-win", "vms.yaml:21", False),
    (person("lisa", "tutors"), "lab-win", "vms.yaml:23", True),
    # The first grant that fits is named; any of them may give more.
    (person("lisa", "students", "tutors"), "lab-win", "vms.yaml:21", True),
]

REFUSED = [
    (person("charlie"), "vm2"),  # being allowed on one VM gives nothing on another
    (person("charlie"), "vm3"),
    (person("ralph"), "vm1"),
    (person("Charlie"), "vm1"),  # names are told apart by case, as the system does
    (person("charlie"), "VM1"),
    (person("charlie "), "vm1"),
    (person("charlie"), "vm1 "),
    (person("charlie"), ""),
    (person("charlie"), "nobodys"),  # no grant, no access
    (person("root", "root", uid=0), "vm1"),  # not even for root
    (person("students"), "lab-win"),  # a user named like a group
    (person("mallory", "charlie"), "vm1"),  # a group named like a user
    (person("lisa", "student"), "lab-win"),
    (person("lisa", "Students"), "lab-win"),
    (person("lisa"), "lab-win"),
    (person("", ""), "vm1"),
    (person("None", "None"), "lab-win"),
    (person("*", "*"), "vm1"),
]


@pytest.mark.parametrize(("who", "vm", "source", "take_over"), ALLOWED)
def test_allowed(who: Identity, vm: str, source: str, take_over: bool) -> None:
    decision = decide(OFFICE, who, vm)
    assert decision.allow
    assert decision.grant is not None
    assert decision.grant.source == source
    assert decision.reason == f"granted at {source}"
    assert decision.take_over is take_over


@pytest.mark.parametrize(("who", "vm"), REFUSED)
def test_refused(who: Identity, vm: str) -> None:
    decision = decide(OFFICE, who, vm)
    assert not decision.allow
    assert decision.grant is None
    assert not decision.take_over
    assert decision.reason == f"you may not use '{vm}'"
    assert decision.hint == "list the VMs you may use, or ask the admin"


def test_a_refusal_does_not_tell_whether_the_vm_exists() -> None:
    empty = parse_map(b"vms: {}", "vms.yaml")
    assert decide(OFFICE, person("charlie"), "vm3") == decide(empty, person("charlie"), "vm3")


def test_a_refusal_shows_no_control_characters() -> None:
    assert decide(OFFICE, person("charlie"), "\x1b[2J").reason == r"you may not use '\x1b[2J'"


def test_an_identity_without_a_name_matches_nothing() -> None:
    nameless = Identity(1000, None, frozenset([None]))  # type: ignore[arg-type,list-item]
    assert visible(OFFICE, nameless) == []


@pytest.mark.parametrize(
    ("who", "vms"),
    [
        (person("charlie"), ["vm1"]),
        (person("anne", "tutors", "students"), ["lab-win", "vm2"]),
        (person("mallory"), []),
    ],
)
def test_visible_is_what_decide_allows(who: Identity, vms: list[str]) -> None:
    shown = visible(OFFICE, who)
    assert [name for name, _ in shown] == vms
    assert all(OFFICE.vms[name] is vm for name, vm in shown)
