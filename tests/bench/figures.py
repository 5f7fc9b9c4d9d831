"""Prints the size of the code, and how many files one request runs through: `script/figures`.

Sizes are those of server and client, without tests; a function's lines go from its `def` to its
end. For the files of a request, a real gate asks a real broker, without sshd: see `walks`.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.broker.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
PARTS = {"server": CHECKOUT / "spicetunnel", "client": CHECKOUT / "client"}

VMS = tuple(f"vm{number}" for number in range(5))
TRIES = 15
QUIET = 0.1  # seconds after an answer, for the broker to finish its work
#: Seconds between two requests. Not a divisor of the broker's intervals, so that its periodic work
#: falls into some of the tries, but not into all.
PAUSE = 0.137

Span = tuple[float, float]  # of time.monotonic()


def main() -> None:
    for name, directory in PARTS.items():
        print_sizes(name, [directory])
    print_sizes("both", list(PARTS.values()))
    print(f"\nfiles that a request runs through in the broker, fewest calls of {TRIES} tries:")
    for request, calls in walks().items():
        own = [file for file in calls if file.startswith("broker/")]
        print(f"  {request:<8} {_walk(calls)}; in spicetunnel/broker {_walk(own)}")


def print_sizes(name: str, directories: list[Path]) -> None:
    texts = [path.read_text() for each in directories for path in each.rglob("*.py")]
    files = [len(text.splitlines()) for text in texts if text]  # an __init__ may be empty
    functions = [lines for text in texts for lines in _functions(text)]
    print(f"{name}: {sum(files)} lines in {len(files)} files, {len(functions)} functions")
    for what, sample in (("file", files), ("function", functions)):
        middle, high = statistics.median(sample), statistics.quantiles(sample, n=10)[-1]
        print(f"  lines per {what:<9} median {middle:4.0f}, p90 {high:4.0f}")


def _functions(text: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def walks() -> dict[str, list[str]]:
    """The file of each call in the broker for one `open`, and for the first channel after it.

    Recorded from before the connection until QUIET seconds after the answer. Of all tries, the one
    with the fewest calls is taken: it has no periodic work, such as a check of the map's file.
    """
    opens, channels = list[Span](), list[Span]()
    # Not TMPDIR, which may be long: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as directory:
        server, record = Server(Path(directory)), Path(directory, "record")
        server.write_map(server.user, *VMS)
        server.patch = f"from tests.bench import calls; calls.record({str(record)!r})"
        with contextlib.closing(server):
            server.start()
            vms = {name: server.vm(name) for name in VMS}
            for name in VMS * (TRIES // len(VMS)):
                with _span(opens):
                    gate = server.open(name)
                with _span(channels):
                    server.channel(vms[name])
                gate.close()
            server.stop_broker()
        calls: list[tuple[float, str]] = json.loads(record.read_text())
    return {"open": _fewest(calls, opens), "channel": _fewest(calls, channels)}


@contextlib.contextmanager
def _span(spans: list[Span]) -> Iterator[None]:
    time.sleep(PAUSE)
    start = time.monotonic()
    yield
    time.sleep(QUIET)
    spans.append((start, time.monotonic()))


def _fewest(calls: list[tuple[float, str]], spans: list[Span]) -> list[str]:
    return min(([file for at, file in calls if a <= at <= b] for a, b in spans), key=len)


def _walk(files: list[str]) -> str:
    """Files and hops. A hop is a call to another file than the call before it."""
    hops = sum(a != b for a, b in itertools.pairwise(files))
    return f"{len(set(files)):3} files {hops:4} hops"


if __name__ == "__main__":
    main()
