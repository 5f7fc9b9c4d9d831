"""Good maps, and what they mean."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from spicetunnel.policy import models
from spicetunnel.policy.models import NO_DEVICES, VIEW_ONLY
from spicetunnel.policy.problems import MapError, quote
from spicetunnel.policy.schedule import Window
from spicetunnel.policy.vmmap import Grant, Vm, VmMap, load_map, parse_map
from spicetunnel.spice.agent import PURPOSES

SIDE = {
    "cursor",
    "display",
    "inputs",
    "playback",
    "port",
    "record",
    "smartcard",
    "tunnel",
    "usbredir",
    "webdav",
}
ALL = SIDE | {"main"}
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
    assert allowed == [(("charlie",), (), False), (("boss",), (), True)]
    assert vms["lab-win"].allow[0].group == ("students",)
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


def test_map_is_immutable() -> None:
    grant = read(MAP).vms["vm1"].allow[0]
    with pytest.raises(ValidationError):
        grant.user = "mallory"  # type: ignore[misc,assignment]


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "'yes'"])
def test_take_over_may_be_written_in_each_of_yamls_ways(word: str) -> None:
    assert vm_with(f"allow: [{{user: ann, take-over: {word}}}]").allow[0].take_over is True


@pytest.mark.parametrize(
    "name",
    [
        "ann",
        "no",  # the Norway problem: a user's name, not false
        "null",
        "0x10",
        "1234567",
        "_apt",
        "ann.smith-2",
        "host01$",
        "ann@example.org",
        "domain users",
        r"EXAMPLE\ann",
        "R&D",
        "Staff (Berlin)",
        "Sales/Marketing",
        "-ann",
        ".ann",
        "@ann",
        "!a",
        "a$b",
        "%a",
        "a;b",
        "müller",
        "李",
        "a" * 255,
    ],
)
def test_user_and_group_names_of_all_account_databases(name: str) -> None:
    grants = vm_with(f"allow: [{{user: '{name}'}}, {{group: '{name}'}}]").allow
    assert (grants[0].user, grants[1].group) == ((name,), (name,))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ann",
        "ann ",
        "a\u00a0b",
        "a\u202eb",
        "a:b",
        "a,b",
        "a*",
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(MapError):
        vm_with(f"allow: [{{user: '{name}'}}]")
    with pytest.raises(MapError):
        vm_with(f"allow: [{{group: '{name}'}}]")


def grant_with(lines: str) -> Grant:
    return vm_with(f"allow: [{{user: ann, {lines}}}]").allow[0]


def test_one_value_may_be_written_without_a_list() -> None:
    one = vm_with(
        "allow: [{user: ann, when: Mon, except: 2026-12-24, from: 192.0.2.7}, {uid: 7}, {group: g}]"
    )
    listed = vm_with(
        "allow: [{user: [ann], when: [Mon], except: [2026-12-24], from: [192.0.2.7]},"
        " {uid: [7]}, {group: [g]}]"
    )
    assert one.allow == listed.allow
    assert one.allow[1].uid == (7,)


def test_a_grant_says_when() -> None:
    grant = grant_with(
        "when: ['Mon,Tue 08:00-12:00,13:00-17:00', Sat], starts: 2026-12-01, ends: 2026-12-31,"
        " except: [2026-12-24..2026-12-26, 2026-12-30]"
    )
    weekdays = frozenset({0, 1})
    assert grant.when == (
        Window(weekdays, 480, 720),
        Window(weekdays, 780, 1020),
        Window(frozenset({5})),
    )
    assert (grant.starts, grant.ends) == (date(2026, 12, 1), date(2026, 12, 31))
    assert grant.except_ == (
        (date(2026, 12, 24), date(2026, 12, 26)),
        (date(2026, 12, 30), date(2026, 12, 30)),
    )


def test_a_grant_says_where_from() -> None:
    grant = grant_with("where: console, from: [192.0.2.0/24, '2001:db8::/32', 198.51.100.7]")
    assert grant.where == "console"
    assert [str(each) for each in grant.from_] == [
        "192.0.2.0/24",
        "2001:db8::/32",
        "198.51.100.7/32",
    ]


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        # None is every channel, those of unknown types too.
        ("take-over: true", None),
        ("channels: {deny: []}", None),
        ("channels: {deny: usbredir}", ALL - {"usbredir"}),
        ("channels: {deny: [usbredir, webdav]}", ALL - {"usbredir", "webdav"}),
        ("channels: {allow: []}", {"main"}),
        ("channels: {allow: [display, inputs]}", {"main", "display", "inputs"}),
        (f"channels: {{allow: [{', '.join(SIDE)}]}}", ALL),
        ("view-only: true", {"main", "display", "cursor", "playback"}),
        ("view-only: false", None),
        ("no-devices: true", {"main", "display", "cursor", "playback", "inputs"}),
        ("no-devices: true, view-only: true", VIEW_ONLY),
        ("no-devices: true, channels: {deny: playback}", NO_DEVICES - {"playback"}),
        # A channel that any of them denies is denied.
        ("view-only: true, channels: {allow: [display, inputs]}", {"main", "display"}),
    ],
)
def test_a_grant_says_how_much(lines: str, allowed: set[str] | None) -> None:
    assert grant_with(lines).allowed == allowed


@pytest.mark.parametrize(
    ("lines", "agent"),
    [
        ("view-only: true", {"clipboard-from-vm"}),
        ("view-only: true, channels: {deny: cursor}", {"clipboard-from-vm"}),
        ("no-devices: true", None),
        ("channels: {allow: [display, cursor, playback]}", None),
        ("user: anne", None),
    ],
)
def test_main_channel_of_view_only_grants_alone_is_filtered(
    lines: str, agent: set[str] | None
) -> None:
    grant = grant_with(lines.replace("user: anne", "take-over: false"))
    assert grant.agent == agent
    assert agent is None or agent <= PURPOSES.keys()


def test_time_zones() -> None:
    vm_map = read(
        "timezone: Europe/Berlin\n"
        "vms: {a: {socket: /a}, b: {socket: /b, timezone: America/New_York}}\n"
    )
    assert str(vm_map.zone_of(vm_map.vms["a"])) == "Europe/Berlin"
    assert str(vm_map.zone_of(vm_map.vms["b"])) == "America/New_York"


def test_default_zone_is_the_servers_looked_up_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zones = iter([ZoneInfo("Asia/Kathmandu")])
    monkeypatch.setattr(models, "local_zone", lambda: next(zones))
    vm_map = read("vms: {a: {socket: /a}}")
    assert vm_map.zone_of(vm_map.vms["a"]) == ZoneInfo("Asia/Kathmandu")
    assert vm_map.zone_of(vm_map.vms["a"]) == ZoneInfo("Asia/Kathmandu")


def test_servers_zone_is_looked_up_again_for_each_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zones = iter([ZoneInfo("Asia/Kathmandu"), ZoneInfo("Europe/Berlin")])
    monkeypatch.setattr(models, "local_zone", lambda: next(zones))
    for zone in ("Asia/Kathmandu", "Europe/Berlin"):
        vm_map = read("vms: {a: {socket: /a}}")
        assert str(vm_map.zone_of(vm_map.vms["a"])) == zone


def test_servers_own_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    assert summer.astimezone(models.local_zone()).utcoffset() == summer.astimezone().utcoffset()
    monkeypatch.setattr(models, "LOCALTIME", str(tmp_path / "none"))
    assert models.local_zone() == ZoneInfo("UTC")
    (tmp_path / "none").write_text("no zone")
    assert models.local_zone() == ZoneInfo("UTC")


@pytest.mark.parametrize("title", ["t" * 80, "é" * 80, "", 'VM: \\"new\\"', "日本語", "שלום"])
def test_titles(title: str) -> None:
    assert vm_with(f'title: "{title}"').title == title.replace("\\", "")


def test_a_socket_path_of_107_bytes_fits() -> None:
    path = "/run/" + "x" * 102
    assert read(f"vms: {{vm1: {{socket: {path}}}}}").vms["vm1"].socket == path
    with pytest.raises(MapError):
        read(f"vms: {{vm1: {{socket: {path}x}}}}")


def test_shared_socket_is_reported_beside_other_problems() -> None:
    with pytest.raises(MapError) as refused:
        read("vms:\n  a: {socket: /s, x: y}\n  b: {socket: /s}\n  c: {socket: /s}\n")
    assert [problem.line for problem in refused.value.problems] == [2, 3, 4]


SCHEMA = VmMap.model_json_schema(by_alias=True)


def test_the_schema_knows_every_key_as_it_is_written() -> None:
    parts = SCHEMA["$defs"]
    top = ["timezone", "people", "delegates", "warn", "limits", "vms"]
    assert list(SCHEMA["properties"]) == top
    vm = ["title", "socket", "timezone", "seat", "password-file", "allow"]
    assert list(parts["Vm"]["properties"]) == vm
    assert {"except", "from", "take-over", "view-only", "no-devices"} < set(
        parts["Grant"]["properties"]
    )
    assert list(parts["Who"]["properties"]) == ["user", "group", "uid", "gid", "everyone"]
    assert list(parts["Channels"]["properties"]) == ["deny", "allow"]
    assert parts["Vm"]["required"] == ["socket"]
    assert all(not each["additionalProperties"] for each in (SCHEMA, *parts.values()))


def test_the_schema_lets_one_value_stand_for_a_list() -> None:
    grant = SCHEMA["$defs"]["Grant"]["properties"]
    for key in ("user", "group", "uid", "people", "when", "except", "from"):
        one, listed = grant[key]["anyOf"]
        assert listed == {"type": "array", "items": one}, key
    assert grant["where"] == {"const": "console", "type": "string"}
    assert set(SCHEMA["$defs"]["Channels"]["properties"]["deny"]["anyOf"][0]["enum"]) == SIDE


def test_the_schema_offers_no_default_and_no_null() -> None:
    text = json.dumps(SCHEMA)
    assert '"default"' not in text
    assert "null" not in text


def test_map_error_in_one_line() -> None:
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
def test_quote_is_one_short_printable_line(text: str, shown: str) -> None:
    assert quote(text) == shown
