"""The gate's own options: the run directory, and the person of a shared account."""

import os
import subprocess
import sys

import pytest

from spicetunnel.common.errors import UsageError
from spicetunnel.gate.__main__ import options_from


@pytest.mark.parametrize(
    ("arguments", "run_dir"),
    [
        ([], "/run/spicetunnel"),
        (["--run-dir", "/run/st"], "/run/st"),
        (["-c", "exec /usr/bin/spicetunnel-gate"], "/run/spicetunnel"),
        (["-c", "exec /usr/bin/spicetunnel-gate --run-dir /run/st"], "/run/st"),
    ],
)
def test_options_that_sshd_passes_are_accepted(arguments: list[str], run_dir: str) -> None:
    assert options_from(arguments, forced=False) == (run_dir, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "id"],
        ["-c", "open vm1"],
        ["-c"],
        ["-c", "exec /usr/bin/spicetunnel-gate", "x"],
        ["-c", "exec /usr/bin/spicetunnel-gate; id"],
        ["-c", "exec /usr/bin/spicetunnel-gate\n"],
        ["-c", "exec /bin/sh -c id"],
        ["-l"],
        ["-i"],
        ["--run-dir", "relative"],
        ["--run-dir", "/run/st", "vm1"],
        ["--run-dir /run/st", "--run-dir /x"],
    ],
)
def test_other_commands_and_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        options_from(arguments, forced=True)


@pytest.mark.parametrize("forced", [True, False])
def test_key_of_a_shared_account_names_the_person(forced: bool) -> None:
    """`command="/usr/bin/spicetunnel-gate --as charlie"`, run by a plain shell."""
    assert options_from(["--as", "charlie"], forced=forced)[1] == "charlie"


FORGED = ["-c", "/usr/bin/spicetunnel-gate --as boss"]


def test_login_shell_accepts_a_name_from_a_forced_command_only() -> None:
    """Unforced, `-c` is what the client typed: `ssh kvm /usr/bin/spicetunnel-gate --as boss`."""
    assert options_from(FORGED, forced=True) == ("/run/spicetunnel", "boss")
    with pytest.raises(UsageError):
        options_from(FORGED, forced=False)


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "a;id", "a/b", "a\nb", "\u00e4", "a" * 65, "a:b"]
)
def test_invalid_name_of_a_person_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        options_from(["--as", name], forced=True)


def gate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spicetunnel.gate", *arguments],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_says_who_starts_it() -> None:
    for option in ("-h", "--help"):
        done = gate(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: spicetunnel-gate [--run-dir DIR] [--as NAME]\n")
        assert "Example" in done.stdout


def test_who_starts_it_otherwise_gets_a_hint() -> None:
    done = gate("--version")
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == (
        "spicetunnel: spicetunnel-gate was not started by sshd's forced command\n"
        "hint: 'spicetunnel sshd-config' prints that; people type 'ssh HOST help'\n"
    )
