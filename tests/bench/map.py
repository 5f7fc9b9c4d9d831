"""Measures reading a large map, and decisions with it: `script/bench map`.

The map has 2,000 VMs and 10,000 grants. The reference, in the same rounds, is `yaml.load` of the
same text with PyYAML's C parser. Compare the ratios: absolute figures depend on the machine.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import yaml

from spicetunnel.policy.decide import Facts, Identity, decide, visible
from spicetunnel.policy.vmmap import VmMap, parse_map

VMS = 2000
USERS = 900
NOON = Facts(datetime(2026, 11, 23, 12, tzinfo=UTC))
NIGHT = Facts(datetime(2026, 11, 23, 2, tzinfo=UTC))

Asked = list[tuple[Identity, str]]


def text() -> str:
    lines = ["timezone: Europe/Berlin", "vms:"]
    for vm in range(VMS):
        lines += [
            f"  vm{vm:04}:",
            f"    title: the machine {vm}",
            f"    socket: /var/lib/spicetunnel/vms/vm{vm:04}.sock",
            "    allow:",
        ]
        for grant in range(4):
            when = f"Mon-Fri {8 + grant:02}:00-{17 + grant}:30"
            lines.append(f'      - {{user: user{(vm * 7 + grant) % USERS}, when: "{when}"}}')
        lines.append(f"      - {{group: group{vm % 50}, take-over: true}}")
    return "\n".join(lines) + "\n"


def person(number: int) -> Identity:
    return Identity(1000 + number, f"user{number}", frozenset({"users", f"group{number % 50}"}))


def questions() -> dict[str, tuple[Asked, Facts]]:
    choice = random.Random(1)
    own = [(person((vm * 7 + choice.randrange(4)) % USERS), f"vm{vm:04}") for vm in range(VMS)]
    anyone = [
        (person(choice.randrange(USERS)), f"vm{choice.randrange(VMS):04}") for _ in range(VMS)
    ]
    return {
        "their own VM at noon": (own, NOON),
        "their own VM at night": (own, NIGHT),
        "any VM, mostly not theirs": (anyone, NOON),
    }


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def reading(rounds: int) -> VmMap:
    written = text()
    data = written.encode()
    works: dict[str, Callable[[], object]] = {
        "yaml.load, C parser": lambda: yaml.load(written, Loader=yaml.CSafeLoader),
        "our reading": lambda: parse_map(data, "vms.yaml"),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(milliseconds(work))
    print(f"the map: {VMS} VMs, {5 * VMS} grants, {len(data) // 1024} KiB")
    peer = statistics.median(times["yaml.load, C parser"])
    for name, each in times.items():
        median = statistics.median(each)
        print(f"{name:<28} {median:7.1f} ms  (fastest {min(each):.1f})  ratio {median / peer:.3f}")
    return parse_map(data, "vms.yaml")


def deciding(vm_map: VmMap, rounds: int) -> None:
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (asked, facts) in questions().items():
            spent = milliseconds(lambda a=asked, f=facts: _decide_all(vm_map, a, f))  # type: ignore[misc]
            times.setdefault(name, []).append(spent / len(asked) * 1e3)
        spent = milliseconds(lambda: visible(vm_map, person(1)))
        times.setdefault("all VMs of one person", []).append(spent * 1e3)
    for name, each in times.items():
        print(f"{name:<28} {statistics.median(each):9.1f} us")


def _decide_all(vm_map: VmMap, asked: Asked, facts: Facts) -> None:
    for identity, vm in asked:
        decide(vm_map, identity, vm, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    deciding(reading(rounds), rounds)


if __name__ == "__main__":
    main()
