"""Measures drawing a week of a large map: `script/bench calendar`.

The map has 2,000 VMs and 10,000 grants, each with other hours, so that no cached result of a grant
helps with another. Reading the map is measured separately.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

from spicetunnel.admin.cli import run
from spicetunnel.policy.vmmap import load_map
from tests.bench.map import milliseconds

VMS, GRANTS = 2000, 5
DAYS = ("Mon-Fri", "Sat", "Mon,Wed", "Thu-Tue")


def text() -> str:
    lines = ["timezone: Europe/Berlin", "vms:"]
    for vm in range(VMS):
        lines += [f"  vm{vm:04}:", f"    socket: /run/vm{vm:04}.sock", "    allow:"]
        for number in range(vm * GRANTS, (vm + 1) * GRANTS):
            start, end = number % 700, 720 + number // 700
            when = f"{DAYS[number % 4]} {_clock(start)}-{_clock(end)}"
            lines.append(f'      - {{user: user{number % 900}, when: "{when}"}}')
    return "\n".join(lines) + "\n"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "vms.yaml")
        path.write_text(text())
        path.chmod(0o644)
        reading = [milliseconds(lambda: load_map(path)) for _ in range(rounds)]
        # Another week in each round, because the spans of a drawn week are cached.
        drawing = [milliseconds(lambda n=n: _draw(path, n)) for n in range(rounds)]  # type: ignore[misc]
    print(f"{VMS} VMs, {VMS * GRANTS} grants")
    print(f"read the map       {statistics.median(reading):8.1f} ms")
    print(f"the same and draw  {statistics.median(drawing):8.1f} ms")


def _draw(path: Path, number: int) -> None:
    week = ["--week", f"2026-11-{2 + 7 * (number % 4):02}"]
    with contextlib.redirect_stdout(io.StringIO()):
        run(["calendar", *week, "--map", str(path)])


if __name__ == "__main__":
    main()
