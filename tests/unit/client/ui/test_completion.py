"""Completion in the real shells. The tests of a shell that is not installed are skipped."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from spice_connect import cli
from spice_connect.ui import completion

from tests.unit.client.fakes import Stage

VMS = (("lab", "example.org"), ("vm1", "example.org"), ("vm1", "kvm"), ("vm2", "anne@kvm"))


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def script(stage: Stage) -> Stage:
    """With scripts at ~/completion.SHELL, three VMs, and no Python, ssh or us in PATH."""
    for shell in "bash", "zsh", "fish":
        text = completion.script(shell, cli.command)
        (stage.home / f"completion.{shell}").write_text(text)
    cache = stage.home / "cache/spice-connect/vms"
    cache.parent.mkdir(parents=True)
    cache.write_text("".join(f"{name} {host}\n" for name, host in VMS))
    (stage.home / "empty").mkdir()
    stage.environment["PATH"] = str(stage.home / "empty")
    return stage


CASES = [
    ("-v l", ("lab",)),
    ("", ("lab", "vm1", "vm2")),
    ("vm", ("vm1", "vm2")),
    ("--wait la", ("lab",)),
    ("--full", ("--full-screen",)),
    ("--no-v", ("--no-viewer",)),
    ("--completion z", ("zsh",)),
    ("--host v", ()),
    ("vm1 -- v", ()),
]


def bash(stage: Stage, line: str) -> list[str]:
    words = " ".join(f"'{word}'" for word in f"spice-connect {line}".split(" "))
    code = (
        f"set -u; . {stage.home}/completion.bash; COMP_WORDS=({words}); "
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _spice_connect; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    shell = shutil.which("bash") or ""
    done = subprocess.run(  # noqa: PLW1510 - the output tells more
        [shell, "--norc", "-c", code], env=stage.environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@needs("bash")
@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash(script: Stage, line: str, offered: tuple[str, ...]) -> None:
    assert tuple(bash(script, line)) == offered


@needs("fish")
@pytest.mark.parametrize(("line", "offered"), CASES)
def test_fish(script: Stage, line: str, offered: tuple[str, ...]) -> None:
    code = f"source {script.home}/completion.fish; complete -C 'spice-connect {line}'"
    shell = shutil.which("fish") or ""
    done = subprocess.run(  # noqa: PLW1510 - the output tells more
        [shell, "--no-config", "-c", code], env=script.environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert tuple(each.split("\t")[0] for each in done.stdout.splitlines()) == offered


@needs("zsh")
@pytest.mark.parametrize(
    ("line", "shown"),
    [("l", "lab "), ("v", "vm1"), ("--full", "--full-screen "), ("--completion z", "zsh ")],
)
def test_zsh(script: Stage, line: str, shown: str) -> None:
    start = f"autoload -U compinit; compinit -u -D; . {script.home}/completion.zsh; PS1='rea''dy> '"
    typed = f"spice-connect {line}"
    text = at_a_prompt(script, [shutil.which("zsh") or "", "-f", "-i"], start, typed)
    assert f"spice-connect {line}".rpartition(" ")[0] in text
    assert shown in text
    assert "example" not in text


@needs("bash")
def test_tab_in_bash(script: Stage) -> None:
    start = f". {script.home}/completion.bash; PS1='rea''dy> '"
    argv = [shutil.which("bash") or "", "--norc", "-i"]
    assert "spice-connect lab " in at_a_prompt(script, argv, start, "spice-connect l")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_and_nothing_is_started(stage: Stage, shell: str) -> None:
    code, out, err = stage.run("--completion", shell)
    assert (code, out, err) == (0, completion.script(shell, cli.command) + "\n", "")
    assert not stage.notes.exists()


def at_a_prompt(stage: Stage, argv: list[str], start: str, typed: str) -> str:
    """The terminal after two TABs."""
    leader, follower = pty.openpty()
    environment = stage.environment | {"TERM": "dumb"}
    shell = subprocess.Popen(
        argv, env=environment, stdin=follower, stdout=follower, stderr=follower, cwd=stage.home
    )
    try:
        os.write(leader, f"{start}\n".encode())
        read_until(leader, "ready> ")  # not the echo of our own line
        os.write(leader, f"{typed}\t\t".encode())
        return read_until(leader, "")
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
        os.close(follower)


def read_until(fd: int, mark: str) -> str:
    """Read until the mark; if it is empty, until a second of silence."""
    text, deadline = "", time.monotonic() + 15
    while time.monotonic() < deadline and (not mark or mark not in text):
        if select.select([fd], [], [], 1)[0]:
            text += os.read(fd, 4096).decode(errors="replace").replace("\r", "")
        elif not mark:
            break
    return text


def remembered(stage: Stage) -> str:
    return (stage.home / "cache/spice-connect/vms").read_text()


def test_only_valid_names_are_remembered(stage: Stage) -> None:
    names = ["vm2", "vm1", "-x", "$(touch x)", "a b", "a\nb", "../x"]
    stage.ssh(f'say("vms", vms=[dict(name=name) for name in {names!r}])\n')
    assert stage.run()[0] == 0
    assert remembered(stage) == "vm1 kvm\nvm2 kvm\n"
    stage.ssh('say("vms", vms=[dict(name="vm3")])\n')
    stage.run()
    assert remembered(stage) == "vm3 kvm\n"


def test_the_list_of_one_host_keeps_the_names_of_others(stage: Stage) -> None:
    stage.ssh('say("vms", vms=[dict(name="vm1"), dict(name="vm2")])\n')
    assert stage.run("--host", "../a/b")[0] == stage.run()[0] == 0
    stage.ssh('say("vms", vms=[dict(name="vm1")])\n')
    assert stage.run()[0] == 0
    assert remembered(stage) == "vm1 ../a/b\nvm1 kvm\nvm2 ../a/b\n"
    assert [file.name for file in (stage.home / "cache/spice-connect").iterdir()] == ["vms"]


def test_the_names_of_a_failed_host_are_kept(stage: Stage) -> None:
    stage.configure(hosts='{ vm9 = "lab" }')
    answer = 'say("vms", vms=[dict(name="vm1" if "kvm" in sys.argv else "vm9")])\n'
    stage.ssh(answer)
    assert stage.run()[0] == 0
    stage.ssh('if "lab" in sys.argv:\n    sys.exit(255)\nsay("vms", vms=[dict(name="vm2")])\n')
    assert stage.run()[0] == 0
    assert remembered(stage) == "vm2 kvm\nvm9 lab\n"


def test_an_opened_vm_is_remembered_and_a_refused_one_is_not(stage: Stage) -> None:
    stage.viewer("")
    assert stage.run("vm7")[0] == stage.run("vm1")[0] == stage.run("--host", "lab", "vm1")[0] == 0
    stage.ssh('say("refused", code=77, reason="no", hint="")\nsys.exit(77)\n')
    assert stage.run("vm8")[0] == 77
    assert remembered(stage) == "vm1 kvm\nvm1 lab\nvm7 kvm\n"


@pytest.mark.parametrize("text", ["vm1\nvm2\n", "a b c\n\n \n$(x) kvm\n", "\xff\x00"])
def test_invalid_lines_of_the_cache_are_dropped(stage: Stage, text: str) -> None:
    """For example a list of an old version, without hosts."""
    cache = stage.home / "cache/spice-connect/vms"
    cache.parent.mkdir(parents=True)
    cache.write_text(text, encoding="latin-1")
    stage.viewer("")
    assert stage.run("vm1")[0] == 0
    assert remembered(stage) == "vm1 kvm\n"


def test_an_unwritable_cache_is_ignored(stage: Stage) -> None:
    (stage.home / "cache").write_text("not a directory")
    stage.viewer("")
    assert stage.run("vm1") == (0, "", "")


def test_every_option_is_offered(script: Stage) -> None:
    """The options as in --help."""
    shown = Path(script.home / "completion.bash").read_text()
    for option in "--host", "--run-dir", "--verbose", "-v", "--json", "--help", "--version":
        assert f"{option} " in shown or f"{option}'" in shown
