"""Decisions compared with a slow and obvious oracle: each grant alone, minute by minute."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spicetunnel.policy.decide import Decision, Facts, Identity, decide, visible
from spicetunnel.policy.models import VIEW_ONLY, VIEW_ONLY_AGENT
from spicetunnel.policy.schedule import DAY_MINUTES, Schedule, Window
from spicetunnel.policy.vmmap import VmMap, parse_map
from tests.unit.policy.test_schedule import MINUTE, ZONES, moments, shows, windows

DAYS = 9
SETS: dict[str, list[dict[str, object]]] = {
    "tutors": [{"user": "ann"}, {"group": ["staff", "devs"]}],
    "nobody": [],
}


@dataclass(frozen=True)
class Line:
    """A grant as it is written, and what the oracle makes of it."""

    who: dict[str, object]
    windows: tuple[Window, ...] = ()
    starts: date = date.min
    ends: date = date.max
    console: bool = False
    networks: tuple[str, ...] = ()
    take_over: bool = False
    view_only: bool = False

    def written(self) -> dict[str, object]:
        keys = {
            "when": [str(window) for window in self.windows],
            "starts": str(self.starts) if self.starts > date.min else "",
            "ends": str(self.ends) if self.ends < date.max else "",
            "where": "console" if self.console else "",
            "from": self.networks,
            "take-over": self.take_over,
            "view-only": self.view_only,
        }
        return self.who | {key: value for key, value in keys.items() if value}

    def is_for(self, person: Identity) -> bool:
        entries = SETS[str(self.who["people"])] if "people" in self.who else [self.who]
        return any(_is_one_of(entry, person) for entry in entries)

    def holds_at(self, facts: Facts, zone: ZoneInfo) -> bool:
        if self.console and not facts.at_console:
            return False
        here = facts.address and any(facts.address in ip_network(net) for net in self.networks)
        if self.networks and not here:
            return False
        schedule = Schedule(zone, self.windows or (Window(),), self.starts, self.ends)
        return shows(schedule, facts.now)


def _is_one_of(entry: dict[str, object], person: Identity) -> bool:
    (kind, value), *_ = entry.items()
    values = value if isinstance(value, list) else [value]
    match kind:
        case "everyone":
            return True
        case "user":
            return person.user in values
        case "uid":
            return person.uid in values
    return any(group in values for group in person.groups)


@dataclass(frozen=True)
class Case:
    zone: ZoneInfo
    vms: dict[str, list[Line]]
    person: Identity
    facts: Facts
    vm: str = field(default="vm1")

    def map(self, *names: str) -> VmMap:
        """The map, with all its VMs or with these only."""
        vms = {
            name: {"socket": f"/run/{name}", "allow": [line.written() for line in lines]}
            for name, lines in self.vms.items()
            if not names or name in names
        }
        text = json.dumps({"timezone": str(self.zone), "people": SETS, "vms": vms})
        return parse_map(text.encode(), "vms.yaml")

    def decide(self) -> Decision:
        return decide(self.map(), self.person, self.vm, self.facts)

    def holding(self, now: datetime) -> Iterator[Line]:
        facts = Facts(now, self.facts.at_console, self.facts.address)
        for line in self.vms[self.vm]:
            if line.is_for(self.person) and line.holds_at(facts, self.zone):
                yield line

    def walk(self, *, allowed: bool) -> datetime | None:
        """The first minute after now at which it is, or is not, allowed; None in these days."""
        step = self.facts.now
        for _ in range(DAYS * DAY_MINUTES):
            step += MINUTE
            if any(self.holding(step)) is allowed:
                return step
        return None


names = st.sampled_from(["ann", "bob", "staff", "devs"])
uids = st.sampled_from([0, 1000, 1001])
people = st.one_of(
    st.builds(lambda user: {"user": user}, names | st.lists(names, min_size=1, max_size=2)),
    st.builds(lambda group: {"group": group}, names | st.lists(names, min_size=1, max_size=2)),
    st.builds(lambda uid: {"uid": uid}, uids | st.lists(uids, min_size=1, max_size=2)),
    st.builds(lambda name: {"people": name}, st.sampled_from(sorted(SETS))),
    st.just({"everyone": True}),
)
networks = st.sampled_from(["192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "0.0.0.0/0", "::/0"])
addresses = st.sampled_from(["192.0.2.7", "198.51.100.7", "2001:db8::7"]).map(ip_address)


@st.composite
def lines(draw: st.DrawFn, moment: datetime, *, plain: bool) -> Line:
    """`plain`: for everybody, everywhere, so that several grants name the person at once."""
    near = st.integers(-3, 6).map(lambda days: moment.date() + timedelta(days=days))
    # In half the cases without dates; otherwise in the right order.
    starts, ends = sorted((draw(st.just(date.min) | near), draw(st.just(date.max) | near)))
    return Line(
        {"everyone": True} if plain else draw(people),
        tuple(draw(st.lists(windows, min_size=plain, max_size=2))),
        starts,
        ends,
        not plain and draw(st.booleans()),
        () if plain else tuple(draw(st.lists(networks, max_size=2))),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    moment = draw(moments)
    vms = {
        name: draw(st.lists(lines(moment, plain=draw(st.booleans())), max_size=size))
        for name, size in [("vm1", 4), ("b", 2)]
    }
    groups = draw(st.frozensets(names, max_size=2))
    person = Identity(draw(uids), draw(names), groups)
    facts = Facts(moment, draw(st.booleans()), draw(st.none() | addresses))
    return Case(ZoneInfo(draw(st.sampled_from(ZONES))), vms, person, facts)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_allowed_if_one_grant_alone_allows(case: Case) -> None:
    decision = case.decide()
    holding = next(case.holding(case.facts.now), None)
    assert decision.allow is (holding is not None)
    assert decision.take_over is (holding is not None and holding.take_over)
    looks_on = holding is not None and holding.view_only
    assert (decision.allowed == VIEW_ONLY) is (decision.agent == VIEW_ONLY_AGENT) is looks_on


@given(cases())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_until_and_next_are_the_first_minute_that_differs(case: Case) -> None:
    decision = case.decide()
    expected = case.walk(allowed=not decision.allow)
    found = decision.until if decision.allow else decision.next
    if expected is None:
        assert found is None or found - case.facts.now > timedelta(days=DAYS - 1)
    else:
        assert found == expected


@given(cases())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_differs_before_the_time_to_decide_again(case: Case) -> None:
    """Deciding again at `changes` is soon enough: until then the same grant counts."""
    decision = case.decide()
    end = min(
        decision.changes or datetime.max.replace(tzinfo=case.facts.now.tzinfo), _in_days(case)
    )
    first = next(case.holding(case.facts.now), None)
    minutes = int((end - case.facts.now) / MINUTE)
    for minute in range(0, minutes, max(1, minutes // 97)):
        assert next(case.holding(case.facts.now + minute * MINUTE), None) == first


def _in_days(case: Case) -> datetime:
    return case.facts.now + timedelta(days=DAYS)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_forbidden_vm_is_refused_like_a_vm_that_does_not_exist(case: Case) -> None:
    theirs = any(line.is_for(case.person) for line in case.vms[case.vm])
    nowhere = decide(case.map("b"), case.person, case.vm, case.facts)
    assert not nowhere.allow
    assert (case.decide() == nowhere) is not theirs


@given(cases())
@settings(max_examples=300, deadline=None)
def test_other_vms_grants_change_nothing(case: Case) -> None:
    alone = decide(case.map(case.vm), case.person, case.vm, case.facts)
    assert case.decide() == alone


@given(cases())
@settings(max_examples=300, deadline=None)
def test_vm_is_visible_if_a_grant_names_the_person(case: Case) -> None:
    shown = [name for name, _ in visible(case.map(), case.person)]
    assert shown == sorted(
        name for name, lines in case.vms.items() if any(line.is_for(case.person) for line in lines)
    )


@given(st.text(max_size=80), cases())
@example("vm1\n", Case(ZoneInfo("UTC"), {"vm1": []}, Identity(0, "", frozenset()), None))  # type: ignore[arg-type]
@settings(max_examples=200, deadline=None)
def test_name_of_no_vm_is_refused_in_one_printable_line(name: str, case: Case) -> None:
    if name in case.vms:
        return
    decision = decide(case.map(), case.person, name, case.facts)
    assert not decision.allow
    assert decision.reason.isprintable()
    assert len(decision.reason) < 100
