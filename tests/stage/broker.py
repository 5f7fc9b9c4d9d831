"""The broker and the relay, each as a service with its own user, and the audit log."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from tests.stage.machine import LOGS, RUN, processes
from tests.stage.process import Process
from tests.stage.sockets import is_listening
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from tests.stage.people import Person

Line = dict[str, Any]

RUN_DIR = RUN / "run"
STATE_DIR = RUN / "state"
RELAY_DIR = RUN / "relay"
RELAY = RELAY_DIR / "relay.sock"
CONTROL = RUN_DIR / "control.sock"
TUNNEL = RUN_DIR / "tunnel.sock"


class Daemon:
    """A service's process. `start` makes it."""

    process: Process

    def start(self) -> Self:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.alive()

    def stop(self) -> None:
        """SIGTERM."""
        self.process.stop()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


class Relay(Daemon):
    """Runs `program` (spicetunnel-relay) as `service`. Only `broker` may talk to it. SIGTERM ends
    every session, kill -9 of the parent ends none."""

    def __init__(self, program: Path, service: Person, broker: Person) -> None:
        self.argv = [str(program), "--dir", str(RELAY_DIR), "--broker-user", broker.name]
        self.service = service
        self.broker = broker

    def start(self) -> Self:
        """Returns when it listens. Its directory has the mode and group of our tmpfiles.d file."""
        RELAY_DIR.mkdir(exist_ok=True)
        os.chown(RELAY_DIR, self.service.uid, self.broker.gid)
        RELAY_DIR.chmod(0o2750)
        self.process = Process(self.argv, LOGS / "relay", person=self.service)
        self.process.until(lambda: is_listening(RELAY), 20, "the relay to listen")
        return self

    def sessions(self) -> list[int]:
        """The process ids of the sessions' processes."""
        return [pid for pid in processes({self.service.uid}) if pid != self.process.pid]


class Broker(Daemon):
    """Runs `program` (spicetunneld) as `service`; its stderr, the audit log, goes to a file."""

    def __init__(self, program: Path, map_file: Path, service: Person) -> None:
        places = ("--map", map_file, "--run-dir", RUN_DIR, "--state-dir", STATE_DIR)
        self.argv = [str(program), *map(str, places), "--relay-dir", str(RELAY_DIR)]
        self.service = service
        self.log_file = LOGS / "broker.err"

    def start(self) -> Self:
        """Returns when both sockets listen."""
        self.service.directory(RUN_DIR, 0o755)
        self.service.directory(STATE_DIR, 0o700)
        self.process = Process(self.argv, LOGS / "broker", person=self.service)
        both = (CONTROL, TUNNEL)
        self.process.until(lambda: all(map(is_listening, both)), 20, "the broker to listen")
        return self

    def restart(self) -> None:
        """Works after a kill too. The log continues in the same file."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Sends SIGHUP and does not wait. The audit log tells the result."""
        self.process.signal(signal.SIGHUP)

    def audit(self, since: int = 0) -> list[Line]:
        """The audit log, without its first `since` lines. Raises StageError for a line that is not
        JSON, such as a traceback."""
        whole_lines = self.log_file.read_text().split("\n")[:-1]
        return [_parse(line) for line in whole_lines[since:]]

    def mark(self) -> int:
        """The number of lines in the log now, for `since`."""
        return len(self.audit())

    def wait_audit(
        self, wanted: Callable[[Line], bool], deadline: float = 10, since: int = 0
    ) -> Line:
        """Wait for a line that is `wanted`; returns the first one."""
        return wait_until(
            lambda: next(filter(wanted, self.audit(since)), None) or {},
            deadline,
            lambda: f"an audit line; the last ones are {self.audit(since)[-20:]}",
        )


def _parse(line: str) -> Line:
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise StageError(f"not a line of the audit log: {line!r}")
    return parsed
