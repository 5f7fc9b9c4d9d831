"""Temporary grants: what they give besides the map's own, and the file that keeps them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spicetunnel.policy.decide import Decision, Facts, Identity, decide, visible, why_not
from spicetunnel.policy.models import VIEW_ONLY
from spicetunnel.policy.schedule import Schedule
from spicetunnel.policy.temporary import (
    LONGEST,
    MOST,
    Lent,
    TemporaryGrant,
    read_grants,
    with_temporary,
    written,
)
from spicetunnel.policy.vmmap import VmMap, parse_map
from tests.unit.policy.test_decide_properties import Case, cases, names
from tests.unit.policy.test_schedule import MINUTE

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OFFICE = parse_map(
    b"""\
timezone: Europe/Berlin
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {user: boss, when: "Tue 12:00-18:00", view-only: true}
  vm2: {socket: /run/vm2.sock}
""",
    "vms.yaml",
)
ANNE, BOSS = Identity(1000, "anne", frozenset()), Identity(1001, "boss", frozenset())


def temporary(**more: Any) -> TemporaryGrant:
    usual: dict[str, Any] = {"id": "3f2a0000", "user": "anne", "vm": "vm2", "by": "root"}
    usual |= {"since": NOON, "until": NOON + timedelta(hours=2), "reason": "the printer"}
    return TemporaryGrant(**(usual | more))


def decided(
    person: Identity, vm: str, now: datetime, *grants: TemporaryGrant, vm_map: VmMap = OFFICE
) -> Decision:
    return decide(with_temporary(vm_map, grants), person, vm, Facts(now))


def test_it_gives_what_a_plain_grant_gives_until_its_exact_end() -> None:
    end = NOON + timedelta(hours=2)
    decision = decided(ANNE, "vm2", NOON, temporary())
    assert (decision.allow, decision.take_over, decision.allowed) == (True, False, None)
    assert decision.until == decision.changes == end
    assert decided(ANNE, "vm2", end - timedelta(microseconds=1), temporary()).allow
    over = decided(ANNE, "vm2", end, temporary())
    assert (over.allow, over.next) == (False, None)
    assert over.hint == "your time there is over; ask the admin"


def test_it_is_for_that_person_at_that_vm_only() -> None:
    assert not decided(BOSS, "vm2", NOON, temporary()).allow
    assert not decided(ANNE, "vm1", NOON, temporary()).allow
    assert [name for name, _ in visible(with_temporary(OFFICE, [temporary()]), ANNE)] == ["vm2"]


def test_it_does_not_change_how_much_the_map_gives() -> None:
    """The boss may only look on until 18:00 in Berlin, and may do everything after that."""
    lent = temporary(user="boss", vm="vm1", until=NOON + timedelta(hours=6))
    before = decided(BOSS, "vm1", NOON, lent)
    assert before.grant is OFFICE.vms["vm1"].allow[0]
    assert before.allowed == VIEW_ONLY
    assert before.changes == NOON + timedelta(hours=5)
    assert before.until == NOON + timedelta(hours=6)
    assert decided(BOSS, "vm1", NOON + timedelta(hours=5), lent).allowed is None


def test_it_does_not_shorten_what_the_map_gives() -> None:
    lent = temporary(user="boss", vm="vm1", until=NOON + MINUTE)
    assert decided(BOSS, "vm1", NOON, lent).until == NOON + timedelta(hours=5)


def test_of_two_temporary_grants_the_later_end_counts() -> None:
    first, second = temporary(), temporary(id="3f2a0001", until=NOON + timedelta(hours=3))
    for both in [(first, second), (second, first)]:
        decision = decided(ANNE, "vm2", NOON, *both)
        assert decision.until == NOON + timedelta(hours=3)
        assert isinstance(decision.grant, Lent)


def test_grant_for_a_vm_not_in_the_map_gives_nothing() -> None:
    dormant = temporary(vm="vm9")
    assert with_temporary(OFFICE, [dormant]) is OFFICE
    refused = decided(ANNE, "vm9", NOON, dormant)
    assert refused.reason == "you may not use 'vm9'"
    back = parse_map(b"vms: {vm9: {socket: /run/vm9.sock}}", "vms.yaml")
    assert decided(ANNE, "vm9", NOON, dormant, vm_map=back).allow


def test_it_says_where_it_comes_from() -> None:
    grant = decided(ANNE, "vm2", NOON, temporary()).grant
    assert isinstance(grant, Lent)
    local = temporary().until.astimezone()
    assert grant.source == f"temporary grant 3f2a0000 by root until {local:%Y-%m-%d %H:%M}"
    over = Facts(temporary().until)
    assert why_not(grant, OFFICE.zone_of(OFFICE.vms["vm2"]), over) == (
        "over: it does not open again"
    )


def test_map_itself_is_not_changed() -> None:
    allowed = [vm.allow for vm in OFFICE.vms.values()]
    with_temporary(OFFICE, [temporary(), temporary(vm="vm1")])
    assert [vm.allow for vm in OFFICE.vms.values()] == allowed


@pytest.mark.parametrize("key", ["until", "since", "expires", "temporary"])
def test_map_file_cannot_have_its_keys(key: str) -> None:
    assert f'"{key}"' not in json.dumps(VmMap.model_json_schema())


@st.composite
def lent_cases(draw: st.DrawFn) -> tuple[Case, list[TemporaryGrant]]:
    case = draw(cases())
    now = case.facts.now
    spans = st.timedeltas(timedelta(minutes=-5), timedelta(days=3))
    ends = draw(st.lists(st.tuples(names, st.sampled_from(["vm1", "b"]), spans), max_size=3))
    return case, [
        temporary(
            id=f"{number:08x}",
            user=user,
            vm=vm,
            since=now - timedelta(hours=1),
            until=now + span,
        )
        for number, (user, vm, span) in enumerate(ends)
    ]


def last_end(case: Case, grants: list[TemporaryGrant]) -> datetime:
    """The last end of those for this person at this VM; the present if there is none."""
    theirs = [each for each in grants if (each.user, each.vm) == (case.person.user, case.vm)]
    return max([case.facts.now, *(each.until for each in theirs)])


def union_until(case: Case, base: Decision, end: datetime) -> datetime | None:
    """Until when the map's own grants or a temporary one hold without a gap."""
    own = base.until if base.allow else case.facts.now
    if own is None or own >= end:
        return own
    facts = Facts(end, case.facts.at_console, case.facts.address)
    then = decide(case.map(), case.person, case.vm, facts)
    return then.until if then.allow else end


@given(lent_cases())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_allowed_is_what_the_map_or_a_temporary_grant_gives(
    drawn: tuple[Case, list[TemporaryGrant]],
) -> None:
    case, grants = drawn
    base, end = case.decide(), last_end(case, grants)
    decision = decide(with_temporary(case.map(), grants), case.person, case.vm, case.facts)
    assert decision.allow is (base.allow or end > case.facts.now)
    if decision.allow:
        assert decision.until == union_until(case, base, end)
    if base.allow:
        assert decision.take_over is base.take_over
        assert (decision.allowed, decision.agent) == (base.allowed, base.agent)
    else:
        assert not decision.take_over
        whole: frozenset[str] | None = None if decision.allow else frozenset()
        assert (decision.allowed, decision.agent) == (whole, whole)


@given(lent_cases())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_differs_before_the_time_to_decide_again(
    drawn: tuple[Case, list[TemporaryGrant]],
) -> None:
    case, grants = drawn
    vm_map, now = with_temporary(case.map(), grants), case.facts.now
    first = decide(vm_map, case.person, case.vm, case.facts)
    end = min(first.changes or now + timedelta(days=4), now + timedelta(days=4))
    for part in range(1, 20):
        facts = Facts(now + (end - now) * part // 20, case.facts.at_console, case.facts.address)
        assert decide(vm_map, case.person, case.vm, facts).grant == first.grant


def test_schedule_with_only_an_end_is_quick() -> None:
    schedule = Schedule(OFFICE.zone_of(OFFICE.vms["vm1"]), expires=NOON + LONGEST)
    assert schedule.next_change(NOON) == NOON + LONGEST


def test_the_file_is_read_as_it_was_written() -> None:
    grants = (temporary(), temporary(id="00000001", user="EXAMPLE\\bob", reason="für Ötzi"))
    assert read_grants(written(grants)) == grants
    assert read_grants(written(())) == ()
    assert b'"until": "2026-11-24T14:00:00Z"' in written(grants)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "3f2a"},
        {"id": "../../etc"},
        {"user": ""},
        {"user": "a,b"},
        {"user": "a:b"},
        {"user": ["anne"]},
        {"user": None},
        {"vm": "../vm1"},
        {"vm": ""},
        {"since": "2026-11-24T12:00:00"},  # without a zone
        {"until": "2026-11-24T12:00:00"},
        {"until": "2026-11-24T12:00:00Z"},  # no time at all
        {"until": "2026-11-24T11:00:00Z"},
        {"until": "2026-12-24T12:00:01Z"},  # more than 30 days
        {"until": "9999-12-31T23:59:59-12:00"},
        {"until": True},
        {"until": None},
        {"by": "ro\not"},
        {"reason": "\x1b[2J"},
        {"reason": "two\nlines"},
        {"reason": "\u202e"},
        {"reason": "x" * 201},
        {"reason": 1},
        {"take-over": True},
        {"from": []},
    ],
)
def test_invalid_temporary_grant_is_refused(change: dict[str, object]) -> None:
    whole = json.loads(written([temporary()]))
    whole["grants"][0] |= change
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_grants(json.dumps(whole).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"v":1}',
        b'{"grants":[]}',
        b'{"v":2,"grants":[]}',
        b'{"v":"1","grants":[]}',
        b'{"v":1,"grants":{}}',
        b'{"v":1,"grants":[],"more":1}',
        b'{"v":1,"grants":[null]}',
        b'{"v":1,"grants":[]} x',
        b"\xff",
        b"[" * 10_000,
    ],
)
def test_invalid_file_of_grants_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_grants(data)


def test_duplicate_id_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        read_grants(written([temporary(), temporary(vm="vm1")]))


def test_too_many_grants_are_refused() -> None:
    many = [temporary(id=f"{number:08x}") for number in range(MOST + 1)]
    assert len(read_grants(written(many[:-1]))) == MOST
    with pytest.raises(ValueError, match="grants"):
        read_grants(written(many))
