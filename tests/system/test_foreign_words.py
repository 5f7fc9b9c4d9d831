"""What else an account on the server says and does, in the gate's way or in its place.

The words come from real programs: start-up files, login shells, sshd's own refusals.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.machine import AUTHORIZED_KEYS, end_processes
from tests.stage.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, vm1: Vm) -> Iterator[Client]:
    """alice's ~/.bashrc on the server is hers again after the test."""
    file = alice.home / ".bashrc"
    before = file.read_text()
    yield stage.client(alice)
    file.write_text(before)


def starts_with(person: Person, line: str) -> None:
    """Put `line` first in ~/.bashrc: Debian's leaves a shell that is not interactive alone."""
    file = person.home / ".bashrc"
    file.write_text(f"{line}\n{file.read_text()}")


#: Without a newline at the end.
WORDS = {
    "title": r"printf '\033]0;server\007'",
    "text": "echo -n 'Welcome, dear user! '",
    "json": """printf '{"event":"rea'""",
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.usefixtures("transport")
def test_a_start_up_file_that_writes_no_newline(stage: Stage, pc: Client, words: str) -> None:
    starts_with(pc.person, words)
    with stage.client(pc.person).spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice\n", 20)
    with stage.client(pc.person).spice_connect("--no-viewer", "vm2") as client:
        assert client.wait(20) == 77
        assert "spice-connect: you may not use 'vm2'" in client.err()


def test_the_gate_begins_on_a_line_of_its_own(pc: Client) -> None:
    starts_with(pc.person, "echo -n hello")
    with pc.ssh("kvm", "list", "--json") as ssh:
        assert ssh.wait(20) == 0
        foreign, answer = ssh.out().splitlines()
    assert (foreign, json.loads(answer)["event"]) == ("hello", "vms")


def test_a_start_up_file_that_never_ends(stage: Stage, pc: Client) -> None:
    """The login worked, and then there is silence: bounded, here to 2 s."""
    starts_with(pc.person, "sleep 60")
    code = (
        "from spice_connect import cli; from spice_connect.tunnel import connection; "
        "connection.FIRST_WORD = 2; cli.main()"
    )
    words = [str(pc.programs / "python"), "-I", "-c", code, "--no-viewer", "vm1"]
    with pc.run(*words) as client:
        assert client.wait(20) == 69
        assert client.err().splitlines()[0] == (
            "spice-connect: kvm let you log in, but its gate said nothing within 2 s"
        )
    end_processes({pc.person.uid})  # the start-up file's program still runs at the server


def ends(pc: Client) -> tuple[int, list[str]]:
    """The exit code, and all that was told."""
    with pc.spice_connect("--no-viewer", "vm1") as client:
        code = client.wait(20)
        assert client.out() == ""
        return code, client.err().splitlines()


NO_GATE = "spice-connect: no spicetunnel gate answered on kvm"


def test_only_the_last_foreign_line_is_told_and_marked(stage: Stage) -> None:
    """Not in the group of the gate, so a real shell runs, in which `open` is another program."""
    stranger = stage.person("stranger", gateway=False)
    starts_with(
        stranger,
        "open() { echo \"xdg-open: unexpected option '$1'\" >&2; echo \"Try 'xdg-open --help'"
        '\\e[31m" >&2; return 1; }',
    )
    code, (told, hint) = ends(stage.client(stranger))
    assert code == 76
    assert told == f"{NO_GATE} (exit status 1); it says: Try 'xdg-open --help'\\e[31m"
    assert hint == "hint: is spicetunnel set up there, and are you in its group? its admin knows"


@pytest.mark.parametrize(
    ("name", "shell", "says", "hint"),
    [
        ("nora", "/usr/sbin/nologin", "This account is currently not available", "no login shell"),
        ("rosa", "/bin/rbash", "restricted", "restricted shell"),
    ],
)
def test_a_login_shell_that_does_not_start_the_gate(
    stage: Stage, name: str, shell: str, says: str, hint: str
) -> None:
    person = stage.person(name)
    run("usermod", "--shell", shell, person.name)
    code, (told, advice) = ends(stage.client(person))
    assert code == 76
    assert told.startswith(NO_GATE)
    assert says in told.partition("; it says: ")[2]
    assert hint in advice


@pytest.mark.parametrize("shell", ["fish", "sh"])
def test_another_shell_that_a_start_up_file_changes_to(pc: Client, shell: str) -> None:
    starts_with(pc.person, f"exec {shell}")
    code, (told, hint) = ends(pc)
    assert (code, told) == (76, f"{NO_GATE} (exit status 0)")
    assert "start-up file" in hint
    assert "ForceCommand" in hint


def test_an_earlier_force_command(stage: Stage, pc: Client) -> None:
    words = "This service allows sftp connections only."
    earlier = f"Match User *\n    ForceCommand echo {words}\n\nMatch Group"
    with Sshd("sftp-only", stage.drop_in().replace("Match Group", earlier, 1)) as sshd:
        pc.goes_to(sshd)
        code, (told, hint) = ends(pc)
    assert (code, told) == (76, f"{NO_GATE} (exit status 0); it says: {words}")
    assert "ForceCommand" in hint


@pytest.fixture
def strict(stage: Stage) -> Iterator[Sshd]:
    """One that asks PAM, as Debian's does, about the age of accounts and passwords."""
    with Sshd("strict", f"UsePAM yes\n{stage.drop_in()}") as sshd:
        yield sshd


def test_an_expired_password(stage: Stage, strict: Sshd) -> None:
    person = stage.person("petra")
    run("chage", "--lastday", "0", person.name)
    pc = stage.client(person)
    pc.goes_to(strict)
    code, (*_, told, hint) = ends(pc)
    assert code == 76
    assert told.startswith(NO_GATE)
    assert "assword" in told.partition("; it says: ")[2]
    assert hint == "hint: your password there has expired: change it on a terminal, by ssh kvm"


def test_an_expired_account(stage: Stage, strict: Sshd) -> None:
    person = stage.person("egon")
    run("chage", "--expiredate", "2020-01-01", person.name)
    pc = stage.client(person)
    pc.goes_to(strict)
    code, (*_, told, hint) = ends(pc)
    assert code == 69
    assert told == "spice-connect: your account on kvm has expired"
    assert hint == "hint: its admin can prolong it"


def with_key_options(person: Person, options: str) -> None:
    file = AUTHORIZED_KEYS / person.name
    file.write_text(f"{options} {person.key.with_suffix('.pub').read_text()}")


def test_a_forced_command_before_the_key(stage: Stage) -> None:
    """Where no Match block of the gate's applies, as outside of its group."""
    person = stage.person("fritz", gateway=False)
    with_key_options(person, 'command="echo only backups here"')
    code, (told, hint) = ends(stage.client(person))
    assert (code, told) == (76, f"{NO_GATE} (exit status 0); it says: only backups here")
    assert "ForceCommand" in hint
