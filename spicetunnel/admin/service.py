"""What the service manager says of a broker that does not answer, and what that said last."""

import os
import subprocess
from typing import NamedTuple

from spicetunnel.policy.problems import printable

UNIT = "spicetunneld.service"
_TIMEOUT = 5.0  # seconds
_WORDS = "spicetunneld: "  # the beginning of what it says before it exits
_HINT = "hint: "


class Service(NamedTuple):
    """`state` in words, such as `failed, exit code 78`; `said` and `hint`: its last words. Each is
    empty where nobody knows.
    """

    state: str
    said: str
    hint: str


def service() -> Service:
    """The unit of this machine's broker. Without systemd, all fields are empty."""
    state = _state(
        _output("systemctl", "show", "--property=ActiveState,SubState,ExecMainStatus", UNIT)
    )
    journal = _output("journalctl", f"--unit={UNIT}", "--lines=50", "--output=cat", "--no-pager")
    return Service(state, *_last_words(journal.splitlines()))


def _state(shown: str) -> str:
    of = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    state = " ".join(printable(of[key]) for key in ("ActiveState", "SubState") if of.get(key))
    code = of.get("ExecMainStatus", "0")
    return f"{state}, exit code {code}" if state and code.isdecimal() and code != "0" else state


def _last_words(lines: list[str]) -> tuple[str, str]:
    """The last reason for an exit, and its hint."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at].startswith(_WORDS):
            after = lines[at + 1] if at + 1 < len(lines) else ""
            hint = after.removeprefix(_HINT) if after.startswith(_HINT) else ""
            return printable(lines[at].removeprefix(_WORDS)), printable(hint)
    return "", ""


def _output(*argv: str) -> str:
    """What the program prints; empty if there is none, or it fails."""
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
