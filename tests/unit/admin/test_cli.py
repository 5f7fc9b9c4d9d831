"""The `spicetunnel` command as a whole: its exit codes and how it complains."""

import pytest

from spicetunnel import __version__
from spicetunnel.admin.cli import cli, run

Output = pytest.CaptureFixture[str]

HINT = "hint: create the file, or correct its path\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "missing command"),
        (["chek"], "no such command 'chek'"),
        (["check", "--xml"], "no such option"),
        (["check", "a", "b"], "got unexpected extra argument"),
        (["sshd-config", "--gate"], "option '--gate' requires an argument"),
    ],
)
def test_wrong_use(arguments: list[str], reason: str, capsys: Output) -> None:
    assert run(arguments) == 64
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith(f"spicetunnel: {reason}")
    assert second.startswith("hint: 'spicetunnel")
    assert second.endswith("-h' shows how it is used")


@pytest.mark.parametrize(
    "command", [[], ["check", "a"], ["sshd-config"], ["sshd-config", "--gate"]]
)
def test_no_control_character_reaches_the_terminal(command: list[str], capsys: Output) -> None:
    assert run([*command, "\x1b[2J\x9b\u202e"]) == 64
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_help(command: list[str], option: str, capsys: Output) -> None:
    assert run([*command, option]) == 0
    assert capsys.readouterr().out.startswith(" ".join(["Usage: spicetunnel", *command, "["]))


@pytest.mark.parametrize("command", ["calendar", "check", "edit", "explain"])
def test_every_command_that_reads_the_map_takes_another(command: str, capsys: Output) -> None:
    assert run([command, "-h"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--map FILE The VM map. [default: /etc/spicetunnel/vms.yaml]" in said


@pytest.mark.parametrize("command", [["calendar"], ["check"], ["edit"], ["explain", "root", "vm1"]])
def test_a_map_that_is_not_there(command: list[str], capsys: Output) -> None:
    assert run([*command, "--map", "/no/vms.yaml"]) == 66
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(f"/no/vms.yaml: cannot be read: no such file or directory\n{HINT}")


def test_version(capsys: Output) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
