"""What a decision says besides yes and no. The table of decisions is in test_decisions.py."""

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from spicetunnel.policy.decide import Facts, Identity, decide, grants_of, visible, why_not
from spicetunnel.policy.models import VIEW_ONLY
from spicetunnel.policy.vmmap import VmMap, parse_map

OFFICE = parse_map(
    b"""\
timezone: Europe/Berlin
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {user: boss, when: "Mon-Fri 17:00-22:00", ends: 2026-11-27}
      - {user: boss, where: console}
      - {user: boss, from: 192.0.2.0/24, when: "Mon 08:00-12:00"}
      - user: charlie
      - {user: lisa, where: console}
  lab:
    socket: /run/lab.sock
    allow:
      - {group: students, when: "Mon 08:00-12:00", view-only: true}
      - {group: tutors, when: "Mon 09:00-10:00", take-over: true}
      - {group: tutors, when: "Mon 10:00-11:00"}
""",
    "vms.yaml",
)


def person(user: str, *groups: str) -> Identity:
    return Identity(1000, user, frozenset(groups))


def monday(clock: str) -> datetime:
    """A time of Monday, 2026-11-23, in Berlin."""
    return datetime.fromisoformat(f"2026-11-23T{clock}+01:00")


BOSS, LISA = person("boss"), person("lisa", "students", "tutors")


def test_decision_that_allows_names_its_grant() -> None:
    decision = decide(OFFICE, LISA, "lab", Facts(monday("09:30")))
    assert decision.allow
    assert (decision.reason, decision.hint) == ("granted", "")
    assert decision.grant is OFFICE.vms["lab"].allow[0]
    assert decision.grant.source == "vms.yaml:14"


def test_later_grant_that_gives_more_adds_nothing() -> None:
    decision = decide(OFFICE, LISA, "lab", Facts(monday("09:30")))
    assert not decision.take_over
    assert decision.allowed == VIEW_ONLY


@pytest.mark.parametrize(
    ("clock", "until", "changes"),
    [("08:30", "12:00", "09:00"), ("09:30", "12:00", "10:00"), ("11:30", "12:00", "12:00")],
)
def test_changes_is_when_any_grant_of_the_person_changes(
    clock: str, until: str, changes: str
) -> None:
    decision = decide(OFFICE, LISA, "lab", Facts(monday(clock)))
    assert (decision.until, decision.changes) == (monday(until), monday(changes))


def test_right_without_an_end_may_still_change() -> None:
    """The evening's grant comes first: from 17:00 on, it says how much is allowed."""
    decision = decide(OFFICE, BOSS, "vm1", Facts(monday("12:00"), at_console=True))
    assert decision.allow
    assert decision.until is None
    assert decision.changes == monday("17:00")


def test_a_refusal_names_the_next_window() -> None:
    decision = decide(OFFICE, BOSS, "vm1", Facts(monday("12:00")))
    assert not decision.allow
    assert decision.reason == "you may not use 'vm1' now"
    assert decision.hint == "your next window opens Mon 2026-11-23 at 17:00 (Europe/Berlin)"
    assert decision.next == decision.changes == monday("17:00")
    assert (decision.grant, decision.until, decision.take_over) == (None, None, False)
    assert (decision.allowed, decision.agent) == (frozenset(), frozenset())


def test_next_window_is_one_for_this_place() -> None:
    """From the office, Monday's 08:00 comes first; from elsewhere it does not count."""
    sunday = datetime(2026, 11, 22, tzinfo=UTC)
    office = Facts(sunday, address=ip_address("192.0.2.7"))
    assert decide(OFFICE, BOSS, "vm1", office).next == monday("08:00")
    assert decide(OFFICE, BOSS, "vm1", Facts(sunday)).next == monday("17:00")


def test_refusal_when_no_window_is_left() -> None:
    facts = Facts(datetime(2026, 12, 1, tzinfo=UTC))
    decision = decide(OFFICE, BOSS, "vm1", facts)
    assert decision.reason == "you may not use 'vm1' now"
    assert decision.hint == "your time there is over; ask the admin"
    assert (decision.next, decision.changes) == (None, None)


def test_refusal_at_the_wrong_place_says_where_it_is_allowed() -> None:
    decision = decide(OFFICE, LISA, "vm1", Facts(monday("12:00")))
    assert decision.reason == "you may use 'vm1' only at the console of this server"
    assert decision.hint == ""


@pytest.mark.parametrize(
    ("number", "facts", "why"),
    [
        (0, Facts(monday("18:00")), ""),
        (0, Facts(monday("12:00")), "not now; opens Mon 2026-11-23 at 17:00"),
        (0, Facts(datetime(2026, 12, 1, tzinfo=UTC)), "over: it does not open again"),
        (1, Facts(monday("12:00")), "only at the console of this server"),
        (1, Facts(monday("12:00"), at_console=True), ""),
        (
            2,
            Facts(monday("09:00")),
            "only from 192.0.2.0/24, and the client's address is not known",
        ),
        (
            2,
            Facts(monday("09:00"), doubt="the client's address may be forged"),
            "only from 192.0.2.0/24, and the client's address may be forged",
        ),
        (
            2,
            Facts(monday("09:00"), address=ip_address("198.51.100.7")),
            "only from 192.0.2.0/24, not 198.51.100.7",
        ),
        (2, Facts(monday("09:00"), address=ip_address("192.0.2.7")), ""),
        (
            2,
            Facts(monday("12:00"), address=ip_address("192.0.2.7")),
            "not now; opens Mon 2026-11-30 at 08:00",
        ),
    ],
)
def test_why_a_grant_does_not_allow(number: int, facts: Facts, why: str) -> None:
    vm = OFFICE.vms["vm1"]
    assert why_not(grants_of(OFFICE, BOSS, vm)[number], OFFICE.zone_of(vm), facts) == why


def test_a_refusal_does_not_tell_whether_the_vm_exists() -> None:
    refused = decide(OFFICE, person("mallory"), "vm1", Facts(monday("12:00")))
    assert refused.reason == "you may not use 'vm1'"
    assert refused.hint == "list the VMs you may use, or ask the admin"
    empty = parse_map(b"vms: {}", "vms.yaml")
    assert refused == decide(empty, person("mallory"), "vm1", Facts(monday("18:00")))


def test_a_refusal_shows_no_control_characters() -> None:
    decision = decide(OFFICE, BOSS, "\x1b[2J", Facts(monday("12:00")))
    assert decision.reason == r"you may not use '\x1b[2J'"


def test_an_identity_without_a_name_matches_nothing() -> None:
    nameless = Identity(1000, None, frozenset([None]))  # type: ignore[arg-type,list-item]
    assert visible(OFFICE, nameless) == []


@pytest.mark.parametrize(
    ("who", "vms"),
    [
        (person("charlie"), ["vm1"]),
        (LISA, ["lab", "vm1"]),
        (person("mallory"), []),
    ],
)
def test_visible_are_the_vms_a_person_may_use_at_some_time(who: Identity, vms: list[str]) -> None:
    shown = visible(OFFICE, who)
    assert [name for name, _ in shown] == vms
    assert all(OFFICE.vms[name] is vm for name, vm in shown)


def test_many_windows_that_never_end_are_decided_quickly() -> None:
    """Twelve grants of two hours each: one of them is always open."""
    grants = [f"{{user: ann, when: '{hour}:00-{hour + 2}:00'}}" for hour in range(0, 24, 2)]
    vm_map: VmMap = parse_map(
        f"vms: {{a: {{socket: /a, allow: [{','.join(grants)}]}}}}".encode(), "m"
    )
    decision = decide(vm_map, person("ann"), "a", Facts(monday("12:30")))
    assert decision.allow
    assert decision.until is None


def test_group_by_its_number_also_one_without_a_name() -> None:
    vm_map = parse_map(b"vms: {a: {socket: /a, allow: [{gid: [4244, 4245]}]}}", "m")
    members = Identity(1000, "kim", frozenset(), frozenset({1000, 4245}))
    others = Identity(1000, "lee", frozenset({"4244"}), frozenset({1000}))
    now = Facts(monday("09:30"))
    assert decide(vm_map, members, "a", now).allow
    assert not decide(vm_map, others, "a", now).allow


def test_set_of_people_by_the_numbers_of_groups() -> None:
    text = b"people: {staff: [gid: 4244]}\nvms: {a: {socket: /a, allow: [people: staff]}}"
    vm_map = parse_map(text, "m")
    members = Identity(1000, "kim", frozenset(), frozenset({4244}))
    assert decide(vm_map, members, "a", Facts(monday("09:30"))).allow
