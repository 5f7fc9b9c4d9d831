"""Measures the client's own time until the desktop: `script/bench connect` (root, for sshd).

Two spans: from Enter to the start of ssh, and from the server's ready line to the start of the
viewer. ssh and the viewer are fakes, so that only the client's work is measured. The reference, in
the same rounds, is a real `ssh host true` to a real sshd on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.stage import Stage as RealStage
from tests.unit.client.fakes import Stage as Client
from tests.unit.client.fakes import eventually

if TYPE_CHECKING:
    from tests.stage.client import Client as Pc

#: Starts a program and notes when. This shell takes 1 ms.
STAMP = """#!/bin/bash
echo "$EPOCHREALTIME" >>"{stamps}/{name}"
exec "{program}" "$@"
"""
READY = """
listener = listen()
with open({stamp!r}, "a") as stamps:
    stamps.write("%.6f" % time.time() + chr(10))
say("ready", session="00000001", vm="vm1", title="A title")
hold()
"""


class Stamped:
    """A client whose ssh and viewer note when they start."""

    def __init__(self, directory: Path) -> None:
        self._stamps = directory
        home, runtime = directory / "home", directory / "run"
        home.mkdir()
        runtime.mkdir(mode=0o700)
        self.client = Client(home, runtime)
        self.client.ssh(READY.format(stamp=str(directory / "ready")))
        self.client.configure(ssh=self._through("ssh"), viewer=self._through("viewer"))

    def _through(self, name: str) -> str:
        script = self._stamps / f"stamped-{name}"
        program = self.client.home / name
        script.write_text(STAMP.format(stamps=self._stamps, name=name, program=program))
        script.chmod(0o755)
        return f'["{script}"]'

    def measure(self) -> tuple[float, float]:
        """Milliseconds from Enter to ssh, and from ready to the viewer."""
        for file in self._stamps.iterdir():
            if file.name in {"ssh", "ready", "viewer"}:
                file.unlink()
        enter = time.time()
        client = self.client.start("vm1")
        eventually((self._stamps / "viewer").exists, 30)
        eventually(lambda: self._last("viewer") > 0, 30)
        to_ssh = self._last("ssh") - enter  # the one before it was `ssh -V`
        to_viewer = self._last("viewer") - self._last("ready")
        client.terminate()
        client.wait(10)
        return 1e3 * to_ssh, 1e3 * to_viewer

    def _last(self, name: str) -> float:
        lines = (self._stamps / name).read_text().split()
        return float(lines[-1]) if lines else 0


def ssh_true(pc: Pc) -> float:
    started = time.perf_counter()
    done = pc.ssh("kvm", "true")
    assert done.wait(30) == 0, done.err()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    with RealStage() as stage, tempfile.TemporaryDirectory() as directory:
        pc = stage.client(stage.person("peer", gateway=False))
        stamped = Stamped(Path(directory))
        try:
            # In turn, so that noise affects all alike. The first round fills the caches.
            found = [(*stamped.measure(), ssh_true(pc)) for _ in range(rounds + 1)][1:]
        finally:
            stamped.client.close()
    peer = statistics.median(times[2] for times in found)
    names = ("Enter to ssh", "ready to viewer", "ssh host true")
    for name, times in zip(names, zip(*found, strict=True), strict=True):
        middle = statistics.median(times)
        low, high = min(times), max(times)
        print(f"{name:<16} {middle:7.1f} ms  ({low:.1f} to {high:.1f})  ratio {middle / peer:.2f}")


if __name__ == "__main__":
    main()
