"""What an edit changes in decisions: who gains, who loses, whose right changes."""

import pytest

from spicetunnel.admin.changes import changes
from spicetunnel.policy.fields import SIDE_CHANNELS
from spicetunnel.policy.models import ALL_CHANNELS
from spicetunnel.policy.vmmap import VmMap, parse_map


def vm1(*grants: str, top: str = "", vm: str = "") -> VmMap:
    allow = "".join(f"\n      - {{{grant}}}" for grant in grants)
    text = f"{top}\nvms:\n  vm1:\n    socket: /run/vm1.sock\n    {vm}\n    allow: {allow or '[]'}\n"
    return parse_map(text.encode(), "vms.yaml")


WEB = "people: {web: [{user: [anne, bea]}, {group: interns}, {uid: 7}]}"

SAME = [
    (vm1("user: anne"), vm1("user: [anne]")),
    (vm1("user: anne"), vm1("user: anne, when: '00:00-24:00'")),
    (vm1("user: anne"), vm1("user: anne", "user: anne")),
    (vm1("user: [anne, bea]"), vm1("user: bea", "user: anne")),
    (vm1("user: anne, when: [Mon, Tue]"), vm1("user: anne, when: [Tue, Mon]")),
    (vm1("user: anne, when: Mon", "user: anne"), vm1("user: anne", "user: anne, when: Mon")),
    (vm1("people: web", top=WEB), vm1("user: [bea, anne]", "group: interns", "uid: 7")),
    (vm1("user: anne", top="timezone: UTC"), vm1("user: anne", vm="timezone: UTC")),
    (vm1("user: anne"), vm1("user: anne", vm="title: another")),
    (vm1("user: anne"), vm1("user: anne", top="warn: [1m, 10m]", vm="seat: exclusive")),
    (
        vm1("user: a, view-only: true", "user: [a, b]"),
        vm1("user: a, view-only: true", "user: [b, a]"),
    ),
    (
        vm1("user: a", "user: a", "user: a, view-only: true"),
        vm1("user: a", "user: a, view-only: true"),
    ),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_the_same_decisions(old: VmMap, new: VmMap) -> None:
    assert changes(old, new) == []
    assert changes(new, old) == []


DIFFERENT = [
    (vm1(), vm1("user: anne"), ["+ anne: vm1 any time"]),
    (vm1(), vm1("user: anne, when: 'Wed,Thu'"), ["+ anne: vm1 Wed,Thu"]),
    (vm1("user: anne"), vm1(), ["- anne: vm1"]),
    (vm1("user: anne", "user: anne, when: Mon"), vm1(), ["- anne: vm1"]),
    (vm1(), vm1("group: web"), ["+ group web: vm1 any time"]),
    (vm1(), vm1("uid: 7"), ["+ uid 7: vm1 any time"]),
    (vm1(), vm1("everyone: true"), ["+ everyone: vm1 any time"]),
    (
        vm1(top=WEB),
        vm1("people: web", top=WEB),
        ["+ anne, bea, group interns, uid 7: vm1 any time"],
    ),
    (
        vm1("people: web", top=WEB),
        vm1("people: web", top="people: {web: [{user: [anne, cleo]}]}"),
        ["- bea, group interns, uid 7: vm1", "+ cleo: vm1 any time"],
    ),
    (
        vm1("user: boss, when: 'Mon-Fri 17:00-22:00'"),
        vm1("user: boss, when: 'Mon-Fri 18:00-20:00'"),
        ["~ boss: vm1 Mon-Fri 17:00-22:00 -> Mon-Fri 18:00-20:00"],
    ),
    (
        vm1("user: anne"),
        vm1("user: anne, take-over: true"),
        ["~ anne: vm1 any time -> any time with take-over"],
    ),
    (
        vm1("user: anne"),
        vm1("user: anne, where: console, from: 192.0.2.0/24"),
        ["~ anne: vm1 any time -> any time at the console from 192.0.2.0/24"],
    ),
    (
        vm1("user: anne"),
        vm1("user: anne, channels: {deny: [webdav, record]}"),
        ["~ anne: vm1 any time -> any time without record, webdav"],
    ),
    (
        vm1("user: anne, channels: {deny: [inputs, port]}"),
        vm1("user: anne, view-only: true"),
        ["~ anne: vm1 any time without inputs, port -> any time view-only"],
    ),
    (
        vm1("user: anne, no-devices: true"),
        vm1("user: anne, channels: {deny: playback}, view-only: true"),
        ["~ anne: vm1 any time no-devices -> any time view-only without playback"],
    ),
    # All that there are today, and all that there will ever be.
    (
        vm1(f"user: anne, channels: {{allow: [{', '.join(sorted(SIDE_CHANNELS))}]}}"),
        vm1("user: anne"),
        [f"~ anne: vm1 any time only {', '.join(sorted(ALL_CHANNELS))} -> any time"],
    ),
    (
        vm1("user: anne"),
        vm1("user: anne, starts: 2026-11-01, ends: 2026-12-01"),
        [
            "~ anne: vm1 any time -> any time starting 2026-11-01 ending 2026-12-01",
        ],
    ),
    (
        vm1("user: anne"),
        vm1("user: anne, except: [2026-11-07..2026-11-09, 2026-11-05]"),
        ["~ anne: vm1 any time -> any time except 2026-11-05, 2026-11-07..2026-11-09"],
    ),
    # One of several grants comes or goes.
    (
        vm1("user: anne, when: Mon"),
        vm1("user: anne, when: Mon", "user: anne, when: Sat"),
        ["+ anne: vm1 Sat"],
    ),
    (
        vm1("user: anne, when: Mon", "user: anne, when: Sat"),
        vm1("user: anne, when: Mon"),
        ["- anne: vm1 Sat"],
    ),
    # A grant more, and yet less than before: the first that matches says how much.
    (
        vm1("user: anne"),
        vm1("user: anne, no-devices: true, when: Mon", "user: anne"),
        ["~ anne: vm1 any time -> Mon no-devices; any time"],
    ),
    (
        vm1("user: anne, take-over: true, when: Mon", "user: anne"),
        vm1("user: anne", "user: anne, take-over: true, when: Mon"),
        ["~ anne: vm1 Mon with take-over; any time -> any time; Mon with take-over"],
    ),
    (
        vm1("user: anne, take-over: true", "group: staff"),
        vm1("group: staff", "user: anne, take-over: true"),
        ["~ vm1: the order of its grants (the first that matches says how much)"],
    ),
    (
        vm1("user: anne, when: Mon", top="timezone: UTC"),
        vm1("user: anne, when: Mon", top="timezone: Europe/Berlin"),
        ["~ anne: vm1 Mon (UTC) -> Mon (Europe/Berlin)"],
    ),
    (vm1(), vm1(top="delegates: [gateway]"), ["+ gateway: speaks for others, as a delegate"]),
    (vm1(top="delegates: gateway"), vm1(), ["- gateway: speaks for others, as a delegate"]),
]


@pytest.mark.parametrize(("old", "new", "lines"), DIFFERENT)
def test_other_decisions(old: VmMap, new: VmMap, lines: list[str]) -> None:
    assert changes(old, new) == lines


def test_vms_come_and_go() -> None:
    old = parse_map(b"vms: {vm1: {socket: /run/a, allow: [user: anne]}}", "vms.yaml")
    new = parse_map(b"vms: {vm2: {socket: /run/a, allow: [user: anne]}}", "vms.yaml")
    assert changes(old, new) == ["- anne: vm1", "+ anne: vm2 any time"]


def test_another_vm_behind_the_name() -> None:
    old = parse_map(b"vms: {vm1: {socket: /run/a, allow: [user: anne]}}", "vms.yaml")
    new = parse_map(b"vms: {vm1: {socket: /run/b, allow: [user: anne]}}", "vms.yaml")
    assert changes(old, new) == ["~ vm1: socket /run/a -> /run/b"]


def test_another_password_file() -> None:
    old = vm1("user: anne")
    new = vm1("user: anne", vm="password-file: /etc/spicetunnel/vm1.password")
    assert changes(old, new) == ["~ vm1: password-file none -> /etc/spicetunnel/vm1.password"]
    assert changes(new, old) == ["~ vm1: password-file /etc/spicetunnel/vm1.password -> none"]


def test_what_holds_for_sessions() -> None:
    new = vm1("user: anne", top="warn: [1h]\nlimits: {sessions-per-user: 3}", vm="seat: shared")
    assert changes(vm1("user: anne"), new) == [
        "~ warn: 10m, 1m -> 1h",
        "~ limits: sessions-per-user 10 -> 3",
        "~ vm1: seat exclusive -> shared",
    ]
    assert changes(new, vm1("user: anne", top="warn: []"))[0] == "~ warn: 1h -> nothing"
