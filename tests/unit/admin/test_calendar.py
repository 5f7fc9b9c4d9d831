"""`spicetunnel calendar`: the week, drawn from the schedules themselves."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from spicetunnel.admin.cli import run
from tests.unit.admin.office import write_map

Output = pytest.CaptureFixture[str]

ASK_GETENT = "'getent passwd NAME' asks the account database as this command does"

OFFICE = """\
Week of 2026-11-23, America/New_York

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
lab-win
  group students [1]    all day all day all day all day all day all day all day

Week of 2026-11-23, Europe/Berlin

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
vm1  Windows 10, book-keeping
  charlie               all day all day all day all day all day all day all day
  boss                  17-22   17-22   17-22   17-22   17-22   —       —
vm2
  maggie                all day all day —       —       —       —       —
  anne                  —       —       all day all day —       —       —
  people web            —       —       —       —       08:30-  —       —
                                                        12:15
                                                        13-
                                                        17:45
  anne [2]              —       —       —       —       —       22-24   00-06
vm3
  nobody                —       —       —       —       —       —       —

[1] only at the console
[2] only from 192.0.2.0/24
"""

ANNE = """\
Week of 2026-11-23, Europe/Berlin

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
vm2                     —       —       all day all day 08:30-  —       —
                                                        12:15
                                                        13-
                                                        17:45
vm2 [1]                 —       —       —       —       —       22-24   00-06

[1] only from 192.0.2.0/24
"""


def drawn(capsys: Output, *arguments: str) -> str:
    assert run(["calendar", *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert max(map(len, said.out.splitlines())) <= 80
    return said.out


@pytest.mark.parametrize("day", ["2026-11-23", "2026-11-25", "2026-11-29"])
def test_week_of_the_office(office: str, capsys: Output, day: str) -> None:
    assert drawn(capsys, "--week", day, "--map", office) == OFFICE


def test_one_persons_week(office: str, capsys: Output) -> None:
    assert drawn(capsys, "--user", "anne", "--week", "2026-11-23", "--map", office) == ANNE


def test_one_vm(office: str, capsys: Output) -> None:
    said = drawn(capsys, "--vm", "vm1", "--week", "2026-11-23", "--map", office)
    begin, end = OFFICE.index("Week of 2026-11-23, Europe"), OFFICE.index("vm2\n")
    assert said == OFFICE[begin:end]


def test_one_persons_week_at_one_vm(office: str, capsys: Output) -> None:
    said = drawn(capsys, "--user", "boss", "--vm", "vm1", "--week", "2026-11-23", "--map", office)
    row = "vm1                     17-22   17-22   17-22   17-22   17-22   —       —\n"
    assert said.endswith(row)


def test_a_person_without_a_vm(office: str, capsys: Output) -> None:
    assert drawn(capsys, "--user", "dave", "--map", office) == "dave may use no vm\n"


def test_a_map_without_vms(tmp_path: Path, capsys: Output) -> None:
    path = write_map(tmp_path / "vms.yaml", "vms: {}\n")
    assert drawn(capsys, "--map", path) == "the map has no vms\n"


CLOCK = """\
timezone: Europe/Berlin
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {user: always}
      - {user: skipped, when: "02:00-03:00"}
      - {user: into, when: "01:30-02:30"}
      - {user: night, when: "Sat 22:00-06:00"}
"""

SPRING = """\
Week of 2026-03-23, Europe/Berlin

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
vm1
  always                all day all day all day all day all day all day all day
  skipped               02-03   02-03   02-03   02-03   02-03   02-03   —
  into                  01:30-  01:30-  01:30-  01:30-  01:30-  01:30-  01:30-
                        02:30   02:30   02:30   02:30   02:30   02:30   03
  night                 —       —       —       —       —       22-24   00-06

Sun 29: the clock goes forward
"""

AUTUMN = """\
Week of 2026-10-19, Europe/Berlin

                        Mon 19  Tue 20  Wed 21  Thu 22  Fri 23  Sat 24  Sun 25
vm1
  always                all day all day all day all day all day all day all day
  skipped               02-03   02-03   02-03   02-03   02-03   02-03   02-03
  into                  01:30-  01:30-  01:30-  01:30-  01:30-  01:30-  01:30-
                        02:30   02:30   02:30   02:30   02:30   02:30   02:30
                                                                        02-
                                                                        02:30
  night                 —       —       —       —       —       22-24   00-06

Sun 25: the clock goes back
"""


@pytest.mark.parametrize(("day", "text"), [("2026-03-23", SPRING), ("2026-10-19", AUTUMN)])
def test_the_weeks_in_which_the_clock_is_set(
    tmp_path: Path, capsys: Output, day: str, text: str
) -> None:
    path = write_map(tmp_path / "vms.yaml", CLOCK)
    assert drawn(capsys, "--week", day, "--map", path) == text


DATES = """\
timezone: Europe/Berlin
vms:
  vm1:
    socket: /run/vm1.sock
    allow:
      - {user: starts, starts: 2026-11-25, when: "17:00-22:00"}
      - {user: ends, ends: 2026-11-25}
      - {user: holiday, except: [2026-11-24, 2026-11-27..2026-11-28], when: "22:00-02:00"}
      - {user: over, ends: 2026-11-01}
      - {user: two, when: "08:00-12:00"}
      - {user: two, when: "12:00-13:00"}
      - {user: two, when: "Sat 20:00-24:00"}
"""

DATED = """\
Week of 2026-11-23, Europe/Berlin

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
vm1
  starts                —       —       17-22   17-22   17-22   17-22   17-22
  ends                  all day all day all day —       —       —       —
  holiday               00-02   00-02   22-24   00-02   00-02   —       22-24
                        22-24                   22-24
  over                  —       —       —       —       —       —       —
  two                   08-13   08-13   08-13   08-13   08-13   08-13   08-13
                                                                20-24
"""


def test_dates_and_several_grants_of_one_person(tmp_path: Path, capsys: Output) -> None:
    path = write_map(tmp_path / "vms.yaml", DATES)
    assert drawn(capsys, "--week", "2026-11-23", "--map", path) == DATED


def test_long_and_wide_names_fit(tmp_path: Path, capsys: Output) -> None:
    wide = "李" * 30
    text = f"""\
timezone: UTC
vms:
  {"v" * 64}:
    title: {"t" * 80}
    socket: /run/vm1.sock
    allow:
      - user: [{wide}]
      - group: [staff, students, tutors, guests]
"""
    path = write_map(tmp_path / "vms.yaml", text)
    said = drawn(capsys, "--week", "2026-11-23", "--map", path).splitlines()
    assert said[3] == "v" * 64 + "  " + "t" * 11 + "..."
    rows = [f"  {wide[:10]}", f"{wide[:11]}", f"{wide[:9]}"]
    assert [line[: len(row)] for line, row in zip(said[4:], rows, strict=False)] == rows
    assert said[7].startswith("  group staff,          all day")
    assert said[8:10] == ["students, tutors,", "guests"]


def test_markup_in_a_title_is_text(tmp_path: Path, capsys: Output) -> None:
    text = "vms: {vm1: {title: '[red]x[/red]', socket: /run/a, allow: [user: '[b]']}}"
    path = write_map(tmp_path / "vms.yaml", text.replace("'[b]'", "anne"))
    assert "\nvm1  [red]x[/red]\n" in drawn(capsys, "--map", path)


def test_default_is_this_week(tmp_path: Path, capsys: Output) -> None:
    path = write_map(tmp_path / "vms.yaml", "timezone: UTC\nvms: {vm1: {socket: /run/a}}\n")
    before = datetime.now(UTC).date()
    said = drawn(capsys, "--map", path)
    mondays = {day - timedelta(days=day.weekday()) for day in (before, datetime.now(UTC).date())}
    assert said.splitlines()[0] in {f"Week of {monday}, UTC" for monday in mondays}


def test_vms_in_the_servers_own_zone_share_a_table(tmp_path: Path, capsys: Output) -> None:
    text = "vms: {vm1: {socket: /run/a}, vm2: {socket: /run/b}}\n"
    path = write_map(tmp_path / "vms.yaml", text)
    assert drawn(capsys, "--week", "2026-11-23", "--map", path).count("Week of") == 1


def test_one_table_for_each_zone(tmp_path: Path, capsys: Output) -> None:
    """Even if the VMs of two zones alternate by name."""
    vms = ", ".join(
        f"{name}: {{socket: /run/{name}, timezone: {zone}}}"
        for name, zone in (("a", "UTC"), ("b", "Asia/Tokyo"), ("c", "UTC"))
    )
    path = write_map(tmp_path / "vms.yaml", f"vms: {{{vms}}}\n")
    said = drawn(capsys, "--week", "2026-11-23", "--map", path)
    headings = [line for line in said.splitlines() if line.startswith(("Week", "a", "b", "c"))]
    week = "Week of 2026-11-23,"
    assert headings == [f"{week} Asia/Tokyo", "b", f"{week} UTC", "a", "c"]


def test_json(office: str, capsys: Output) -> None:
    arguments = ["--vm", "vm2", "--user", "anne", "--week", "2026-11-23", "--json"]
    rows = json.loads(drawn_json(capsys, *arguments, "--map", office))["rows"]
    assert [(row["vm"], row["who"], row["place"], row["zone"]) for row in rows] == [
        ("vm2", "anne", None, "Europe/Berlin"),
        ("vm2", "anne", "from 192.0.2.0/24", "Europe/Berlin"),
    ]
    assert [day["date"] for day in rows[0]["days"]] == [f"2026-11-{day}" for day in range(23, 30)]
    assert rows[0]["days"][4]["open"] == [
        {"start": "2026-11-27T08:30:00+01:00", "end": "2026-11-27T12:15:00+01:00"},
        {"start": "2026-11-27T13:00:00+01:00", "end": "2026-11-27T17:45:00+01:00"},
    ]
    assert rows[0]["days"][0]["open"] == []


def drawn_json(capsys: Output, *arguments: str) -> str:
    assert run(["calendar", *arguments]) == 0
    return capsys.readouterr().out


def test_json_of_a_vm_that_nobody_may_use(office: str, capsys: Output) -> None:
    rows = json.loads(drawn_json(capsys, "--vm", "vm3", "--json", "--map", office))["rows"]
    assert [(row["vm"], row["who"], row["place"]) for row in rows] == [("vm3", None, None)]


def test_person_who_comes_through_a_shared_account(
    tmp_path: Path, office: str, capsys: Output
) -> None:
    vms = "vms: {vm1: {socket: /run/a, timezone: UTC, allow: [user: zoe]}}\n"
    path = write_map(tmp_path / "vms.yaml", f"delegates: spice\n{vms}")
    arguments = ["--user", "zoe", "--week", "2026-11-23", "--map", path]
    assert (
        drawn(capsys, *arguments)
        == """\
Week of 2026-11-23, UTC

                        Mon 23  Tue 24  Wed 25  Thu 26  Fri 27  Sat 28  Sun 29
vm1                     all day all day all day all day all day all day all day

zoe has no account here: comes through a shared account, spice
"""
    )
    assert json.loads(drawn_json(capsys, *arguments, "--json"))["via"] == ["spice"]
    path = write_map(tmp_path / "vms.yaml", vms)
    assert run(["calendar", *arguments]) == 67


def test_json_of_a_person_with_and_without_an_account(office: str, capsys: Output) -> None:
    for options in (["--user", "anne"], []):
        said = drawn_json(capsys, *options, "--json", "--map", office)
        assert json.loads(said)["via"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--user", "eve"], 67, f"no user 'eve' on this server\nhint: {ASK_GETENT}"),
        (["--vm", "vm9"], 64, "the map has no vm 'vm9'\nhint: did you mean 'vm3'?"),
        (
            ["--vm", "x\x1b"],
            64,
            "the map has no vm 'x\\x1b'\nhint: the vms are: lab-win, vm1, vm2, vm3",
        ),
        (
            ["--week", "soon"],
            64,
            "--week must be a date, not 'soon'\nhint: write it like 2026-12-24",
        ),
        (
            ["--week", "9999-12-31"],
            64,
            "--week must be a date, not '9999-12-31'\nhint: write it like 2026-12-24",
        ),
    ],
)
def test_wrong_use(office: str, capsys: Output, arguments: list[str], code: int, said: str) -> None:
    assert run(["calendar", *arguments, "--map", office]) == code
    assert capsys.readouterr() == ("", f"spicetunnel: {said}\n")
