"""A table of decisions: who may use what, when, from where, and how much of it.

Each line: person | VM | time (in Berlin, unless it has an offset) | place | answer. Monday is
2026-11-23. The times of an answer are in the VM's time zone; an answer without a time never ends.
"""

from datetime import UTC, datetime
from ipaddress import ip_address
from zoneinfo import ZoneInfo

import pytest

from spicetunnel.policy.decide import Decision, Facts, Identity, decide
from spicetunnel.policy.vmmap import parse_map

OFFICE = parse_map(
    b"""\
timezone: Europe/Berlin
people:
  tutors: [user: tina, {group: [tutors, professors]}]
  guests: [uid: [2001, 2002]]
  empty: []
vms:
  # The office.
  vm1:
    title: Windows 10, book-keeping
    socket: /run/vm1.sock
    allow:
      - user: charlie
      - {user: boss, when: "Mon-Fri 17:00-22:00", take-over: true}
  vm2:
    socket: /run/vm2.sock
    allow:
      - {user: maggie, when: "Mon,Tue"}
      - {user: anne, when: "Wed,Thu"}
  vm3:
    title: the confidential report
    socket: /run/vm3.sock
    allow:
      - user: ralph
  lab-win:
    socket: /run/lab-win.sock
    allow:
      - {group: students, where: console}
  # Who.
  team:
    socket: /run/team.sock
    allow:
      - user: [kim, lee]
      - group: [devs, ops]
      - uid: 2003
  course:
    socket: /run/course.sock
    allow:
      - people: [tutors, guests, empty]
  lobby: {socket: /run/lobby.sock, allow: [everyone: true]}
  nobodys: {socket: /run/nobodys.sock}
  emptied: {socket: /run/emptied.sock, allow: [people: empty]}
  # When.
  night:
    socket: /run/night.sock
    allow: [{user: kim, when: "Sat 22:00-06:00"}]
  dst:
    socket: /run/dst.sock
    allow:
      - {user: kim, when: "Sun 02:15-02:45"}
      - {user: lee, when: "Sat 22:00-06:00"}
  term:
    socket: /run/term.sock
    allow:
      - user: kim
        when: Mon-Fri 08:00-18:00
        starts: 2026-10-01
        ends: 2027-02-12
        except: [2026-12-24..2027-01-06, 2026-11-25]
      - {user: lee, ends: 2026-11-23}
      - {user: max, when: "22:00-06:00", except: 2026-11-24}
  shifts:
    socket: /run/shifts.sock
    allow:
      - {user: kim, when: "Mon 08:00-12:00"}
      - {user: kim, when: "Mon 12:00-16:00", view-only: true}
      - {user: kim, when: "Mon 15:00-17:00"}
      - {user: lee, when: ["08:00-20:00", "20:00-08:00"]}
      - {user: max, when: "08:00-20:00", ends: 2026-11-24}
      - {user: max, when: "20:00-08:30"}
  new-york:
    socket: /run/new-york.sock
    timezone: America/New_York
    allow: [{user: kim, when: "Mon 09:00-17:00"}]
  # Where.
  branch:
    socket: /run/branch.sock
    allow:
      - {user: kim, from: [192.0.2.0/24, "2001:db8:1::/48"]}
      - {user: lee, from: "::/0"}
      - {user: max, from: 0.0.0.0/0}
  desk:
    socket: /run/desk.sock
    allow:
      - {user: kim, where: console, from: 127.0.0.0/8, when: Mon}
      - {user: lee, where: console}
      - {user: lee, when: "Mon 20:00-21:00"}
  # How much.
  media:
    socket: /run/media.sock
    allow:
      - {user: kim, view-only: true}
      - {user: lee, no-devices: true}
      - {user: max, channels: {deny: [playback, record]}}
      - {user: tina, channels: {allow: [display, inputs, cursor]}}
      - {user: ann, channels: {allow: []}}
      - {user: ann, take-over: true}
      - {user: bob, when: "Mon 12:00-13:00", view-only: true}
      - {user: bob, take-over: true}
""",
    "vms.yaml",
)

PEOPLE = {
    name: Identity(uid, name, frozenset(groups.split()))
    for name, uid, groups in [
        ("charlie", 1001, "users"),
        ("boss", 1002, "users"),
        ("maggie", 1003, "users"),
        ("anne", 1004, "users"),
        ("ralph", 1005, "users"),
        ("lisa", 1006, "users students"),
        ("kim", 1007, "users"),
        ("lee", 1008, "users ops"),
        ("max", 1009, "users"),
        ("tina", 1010, "users"),
        ("prof", 1011, "users professors"),
        ("ann", 1012, "users"),
        ("bob", 1013, "users"),
        ("dev", 1014, "devs users ops"),
        ("root", 0, "root"),
        ("guest", 2001, "guests"),
        ("visitor", 2003, ""),
        ("students", 1020, "users"),  # a user called like a group
        ("charly", 1021, "charlie"),  # a group called like a user
        ("Charlie", 1022, "users"),
        ("", 1023, ""),  # a uid without an account
        ("1001", 1024, "1001"),  # called like a uid
        ("everyone", 1025, "everyone"),
    ]
}

TABLE = """
# Charlie always.
charlie  | vm1     | Mon 11-23 03:00 |          | yes
charlie  | vm1     | Sun 11-29 23:59 |          | yes
# The boss in the evening.
boss     | vm1     | Mon 11-23 16:59 |          | no, next Mon 11-23 17:00
boss     | vm1     | Mon 11-23 17:00 |          | yes until Mon 11-23 22:00, take-over
boss     | vm1     | Fri 11-27 21:59 |          | yes until Fri 11-27 22:00, take-over
boss     | vm1     | Fri 11-27 22:00 |          | no, next Mon 11-30 17:00
boss     | vm1     | Sat 11-28 18:00 |          | no, next Mon 11-30 17:00
# Maggie on Mondays and Tuesdays, Anne on Wednesdays and Thursdays.
maggie   | vm2     | Mon 11-23 00:00 |          | yes until Wed 11-25 00:00
maggie   | vm2     | Tue 11-24 23:59 |          | yes until Wed 11-25 00:00
maggie   | vm2     | Wed 11-25 00:00 |          | no, next Mon 11-30 00:00
anne     | vm2     | Tue 11-24 23:59 |          | no, next Wed 11-25 00:00
anne     | vm2     | Wed 11-25 00:00 |          | yes until Fri 11-27 00:00
anne     | vm2     | Fri 11-27 00:00 |          | no, next Wed 12-02 00:00
# Ralph alone, and on nothing else.
ralph    | vm3     | Sun 11-29 12:00 |          | yes
ralph    | vm1     | Mon 11-23 18:00 |          | no
ralph    | vm2     | Mon 11-23 18:00 |          | no
charlie  | vm3     | Mon 11-23 18:00 |          | no
boss     | vm3     | Mon 11-23 18:00 |          | no
maggie   | vm1     | Mon 11-23 18:00 |          | no
root     | vm3     | Mon 11-23 18:00 |          | no
# The lab: who sits at the console, of those in the group.
lisa     | lab-win | Mon 11-23 12:00 | console  | yes
lisa     | lab-win | Mon 11-23 12:00 |          | no: only at the console of this server
boss     | lab-win | Mon 11-23 18:00 | console  | no
students | lab-win | Mon 11-23 12:00 | console  | no
# Nobody's, unknown and odd names.
charlie  | nobodys | Mon 11-23 12:00 |          | no
charlie  | emptied | Mon 11-23 12:00 |          | no
charlie  | vm9     | Mon 11-23 12:00 |          | no
charlie  | VM1     | Mon 11-23 12:00 |          | no
Charlie  | vm1     | Mon 11-23 12:00 |          | no
charly   | vm1     | Mon 11-23 12:00 |          | no
1001     | vm1     | Mon 11-23 12:00 |          | no
# Lists of users, groups (primary or not), uids, sets of people, everyone.
kim      | team    | Mon 11-23 12:00 |          | yes
lee      | team    | Mon 11-23 12:00 |          | yes
dev      | team    | Mon 11-23 12:00 |          | yes
visitor  | team    | Mon 11-23 12:00 |          | yes
max      | team    | Mon 11-23 12:00 |          | no
tina     | course  | Mon 11-23 12:00 |          | yes
prof     | course  | Mon 11-23 12:00 |          | yes
guest    | course  | Mon 11-23 12:00 |          | yes
visitor  | course  | Mon 11-23 12:00 |          | no
lisa     | course  | Mon 11-23 12:00 |          | no
lisa     | lobby   | Mon 11-23 12:00 |          | yes
         | lobby   | Mon 11-23 12:00 |          | yes
         | team    | Mon 11-23 12:00 |          | no
everyone | vm1     | Mon 11-23 12:00 |          | no
# Over midnight: Saturday's window, and none on Friday's night.
kim      | night   | Sat 11-28 21:59 |          | no, next Sat 11-28 22:00
kim      | night   | Sat 11-28 22:00 |          | yes until Sun 11-29 06:00
kim      | night   | Sun 11-29 05:59 |          | yes until Sun 11-29 06:00
kim      | night   | Sun 11-29 06:00 |          | no, next Sat 12-05 22:00
kim      | night   | Sat 11-28 02:00 |          | no, next Sat 11-28 22:00
# The night the clocks go forward: 02:15 to 02:45 is not shown, and so is open a week later.
kim      | dst     | Sun 03-29 01:59 |          | no, next Sun 04-05 02:15
lee      | dst     | Sun 03-29 01:59 |          | yes until Sun 03-29 06:00
# The night they go back: it comes twice.
kim      | dst     | 2026-10-25T02:00+02:00 |   | no, next Sun 10-25 02:15 CEST
kim      | dst     | 2026-10-25T02:30+02:00 |   | yes until Sun 10-25 02:45 CEST
kim      | dst     | 2026-10-25T02:50+02:00 |   | no, next Sun 10-25 02:15 CET
kim      | dst     | 2026-10-25T02:30+01:00 |   | yes until Sun 10-25 02:45 CET
kim      | dst     | 2026-10-25T02:50+01:00 |   | no, next Sun 11-01 02:15
lee      | dst     | Sat 10-24 23:00 |          | yes until Sun 10-25 06:00
# Terms and holidays.
kim      | term    | Wed 09-30 12:00 |          | no, next Thu 10-01 08:00
kim      | term    | Thu 10-01 12:00 |          | yes until Thu 10-01 18:00
kim      | term    | Tue 11-24 18:00 |          | no, next Thu 11-26 08:00
kim      | term    | Wed 11-25 12:00 |          | no, next Thu 11-26 08:00
kim      | term    | Thu 12-24 12:00 |          | no, next Thu 01-07 08:00
kim      | term    | 2027-02-12 17:59 |         | yes until Fri 02-12 18:00
kim      | term    | 2027-02-12 18:00 |         | no, over
lee      | term    | Mon 11-23 23:59 |          | yes until Tue 11-24 00:00
lee      | term    | Tue 11-24 00:00 |          | no, over
# A night belongs to the day it began on: the 24th's is left out, the 23rd's goes on.
max      | term    | Tue 11-24 05:00 |          | yes until Tue 11-24 06:00
max      | term    | Tue 11-24 23:00 |          | no, next Wed 11-25 22:00
# Windows that follow one another, whatever they give meanwhile.
kim      | shifts  | Mon 11-23 09:00 |          | yes until Mon 11-23 17:00
kim      | shifts  | Mon 11-23 12:00 |          | yes until Mon 11-23 17:00, VIEW
kim      | shifts  | Mon 11-23 15:30 |          | yes until Mon 11-23 17:00, VIEW
kim      | shifts  | Mon 11-23 16:00 |          | yes until Mon 11-23 17:00
kim      | shifts  | Mon 11-23 17:00 |          | no, next Mon 11-30 08:00
lee      | shifts  | Mon 11-23 20:00 |          | yes
max      | shifts  | Mon 11-23 09:00 |          | yes until Wed 11-25 08:30
# A VM's own time zone: 15:00 in Berlin is 09:00 in New York.
kim      | new-york | Mon 11-23 14:59 |         | no, next Mon 11-23 09:00
kim      | new-york | Mon 11-23 15:00 |         | yes until Mon 11-23 17:00
kim      | new-york | Mon 11-23 23:00 |         | no, next Mon 11-30 09:00
# From where.
kim      | branch  | Mon 11-23 12:00 | 192.0.2.7            | yes
kim      | branch  | Mon 11-23 12:00 | 192.0.2.255          | yes
kim      | branch  | Mon 11-23 12:00 | ::ffff:192.0.2.7     | yes
kim      | branch  | Mon 11-23 12:00 | 2001:db8:1::7        | yes
kim      | branch  | Mon 11-23 12:00 | 192.0.3.0            | no: only from NETS, not 192.0.3.0
kim      | branch  | Mon 11-23 12:00 | ::ffff:192.0.3.0     | no: only from NETS, not 192.0.3.0
kim      | branch  | Mon 11-23 12:00 | ::192.0.2.7          | no: only from NETS, not ::c000:207
kim      | branch  | Mon 11-23 12:00 | 2001:db8:2::7        | no: only from NETS, not 2001:db8:2::7
kim      | branch  | Mon 11-23 12:00 |                      | no: only from NETS, and DOUBT
lee      | branch  | Mon 11-23 12:00 | 2001:db8:2::7        | yes
lee      | branch  | Mon 11-23 12:00 | 192.0.2.7            | no: only from ::/0, not 192.0.2.7
lee      | branch  | Mon 11-23 12:00 | ::ffff:192.0.2.7     | no: only from ::/0, not 192.0.2.7
lee      | branch  | Mon 11-23 12:00 | fe80::7%eth0         | yes
max      | branch  | Mon 11-23 12:00 | ::ffff:192.0.2.7     | yes
max      | branch  | Mon 11-23 12:00 |                      | no: only from 0.0.0.0/0, and DOUBT
# All that a grant asks must hold; what is said first is where, then when.
kim      | desk    | Mon 11-23 12:00 | console 127.0.0.1    | yes until Tue 11-24 00:00
kim      | desk    | Mon 11-23 12:00 | 127.0.0.1            | no: only at the console of this server
kim      | desk    | Mon 11-23 12:00 | console              | no: only from 127.0.0.0/8, and DOUBT
kim      | desk    | Tue 11-24 12:00 | console 127.0.0.1    | no, next Mon 11-30 00:00
lee      | desk    | Mon 11-23 20:30 |                      | yes until Mon 11-23 21:00
lee      | desk    | Mon 11-23 20:30 | console              | yes
lee      | desk    | Mon 11-23 12:00 |                      | no, next Mon 11-23 20:00
# How much of it: the first grant that holds now says it, and it alone.
kim      | media   | Mon 11-23 12:00 |          | yes, VIEW
lee      | media   | Mon 11-23 12:00 |          | yes, only cursor display inputs main playback
max      | media   | Mon 11-23 12:00 |          | yes, only cursor display inputs main port smartcard tunnel usbredir webdav
tina     | media   | Mon 11-23 12:00 |          | yes, only cursor display inputs main
ann      | media   | Mon 11-23 12:00 |          | yes, only main
bob      | media   | Mon 11-23 12:30 |          | yes, VIEW
bob      | media   | Mon 11-23 13:00 |          | yes, take-over
"""  # noqa: E501 - a line a decision

SHORT = {
    "only cursor display main playback, view-only": "VIEW",
    "192.0.2.0/24, 2001:db8:1::/48": "NETS",
    "the client's address is not known": "DOUBT",
}
LINES = [line for line in TABLE.strip().splitlines() if not line.startswith("#")]


def facts(moment: str, place: str) -> Facts:
    words = place.split()
    addresses = [ip_address(word) for word in words if word != "console"]
    return Facts(instant(moment), "console" in words, addresses[0] if addresses else None)


def instant(text: str) -> datetime:
    """`Mon 11-23 03:00` of 2026, or a full date."""
    day = text.split(maxsplit=1)[0]
    short = datetime.strptime(f"2026 {text}", "%Y %a %m-%d %H:%M") if day.isalpha() else None
    moment = short or datetime.fromisoformat(text)
    assert not short or f"{short:%a}" == day, "the line's weekday"
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo("Europe/Berlin"))


def answer(decision: Decision, vm: str) -> str:
    zone = OFFICE.zone_of(OFFICE.vms[vm]) if vm in OFFICE.vms else ZoneInfo("UTC")
    if decision.allow:
        until = f" until {spoken(decision.until, zone)}" if decision.until else ""
        take_over = ", take-over" if decision.take_over else ""
        channels = None if decision.allowed is None else " ".join(sorted(decision.allowed))
        only = "" if channels is None else f", only {channels}"
        looks_on = ", view-only" if decision.agent is not None else ""
        said = f"yes{until}{take_over}{only}{looks_on}"
    elif decision.reason == f"you may not use '{vm}'":
        said = "no"
    elif decision.next:
        said = f"no, next {spoken(decision.next, zone)}"
    elif decision.hint == "your time there is over; ask the admin":
        said = "no, over"
    else:
        said = decision.reason.replace(f"you may use '{vm}'", "no:")
    for words, short in SHORT.items():
        said = said.replace(words, short)
    return said


def spoken(moment: datetime, zone: ZoneInfo) -> str:
    local = moment.astimezone(zone)
    offsets = {local.replace(fold=fold).utcoffset() for fold in (0, 1)}
    return f"{local:%a %m-%d %H:%M}" + (f" {local:%Z}" if len(offsets) > 1 else "")


@pytest.mark.parametrize("line", LINES)
def test_decision(line: str) -> None:
    person, vm, moment, place, expected = (part.strip() for part in line.split("|"))
    decision = decide(OFFICE, PEOPLE[person], vm, facts(moment, place))
    assert answer(decision, vm) == expected


@pytest.mark.parametrize("line", LINES)
def test_decision_does_not_depend_on_the_zone_of_now(line: str) -> None:
    """The zone in which `now` is written does not matter."""
    person, vm, moment, place, _ = (part.strip() for part in line.split("|"))
    here = facts(moment, place)
    there = Facts(here.now.astimezone(UTC), here.at_console, here.address)
    assert decide(OFFICE, PEOPLE[person], vm, here) == decide(OFFICE, PEOPLE[person], vm, there)


def test_the_table_is_long_enough() -> None:
    assert len(LINES) >= 60
