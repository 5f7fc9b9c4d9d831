"""The `spicetunnel` command imports the code of the command that is called, and no other.

Each login to a shared account waits for `keys` or `principals`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from spicetunnel.admin.cli import cli, run
from tests.unit.admin.test_principals import certificate_text

HEAVY = {
    "asyncio",
    "prometheus_client",
    "prompt_toolkit",
    "pydantic",
    "pydantic_core",
    "rich",
    "spicetunnel.broker",
    "spicetunnel.policy.models",
    "yaml",
}
Output = pytest.CaptureFixture[str]


def imported_by(*arguments: str) -> set[str]:
    """The modules that one call of the command leaves in sys.modules."""
    code = (
        "import sys\n"
        "from spicetunnel.admin.cli import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [["keys", "--dir", "/no"], ["principals", certificate_text(b"anne")], ["--version"]],
)
def test_a_login_waits_for_nothing_heavy(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & HEAVY


def test_heavy_modules_are_seen_where_they_are_needed() -> None:
    assert imported_by("schema") >= {"pydantic", "yaml", "spicetunnel.policy.models"}


def test_every_command_of_the_package_is_in_the_help(capsys: Output) -> None:
    """No file of a command is forgotten in the table."""
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    shown = {line.split()[0] for line in lines}
    source = Path(__file__).parents[3] / "spicetunnel" / "admin"
    files = [file.read_text() for file in source.glob("*.py")]
    assert len(shown) == sum(text.count("@click.command(") for text in files)


@pytest.mark.parametrize(
    ("words", "completed"), [("ke", "keys"), ("keys --d", "--dir"), ("pri", "principals")]
)
def test_completion(words: str, completed: str) -> None:
    complete = ShellComplete(cli, {}, "spicetunnel", "_ST_COMPLETE")
    *before, incomplete = words.split()
    assert completed in [each.value for each in complete.get_completions(before, incomplete)]
