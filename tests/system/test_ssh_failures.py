"""Why one does not get in, said by the real ssh and sshd: each cause has its own sentence."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.sockets import free_port
from tests.stage.sshd import Sshd

if TYPE_CHECKING:
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.stage import Stage


#: The built-in ssh fails in words of its own, and for the same causes.
pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def pc(stage: Stage, alice: Person) -> Client:
    """Its ssh configuration is written anew for each test, which may spoil it."""
    return stage.client(alice)


def own(pc: Client, name: str, text: str) -> str:
    path = pc.home(name)
    path.write_text(text)
    return str(pc.person.owns(path, 0o600))


def refused(pc: Client, reason: str, code: int = 69) -> str:
    """The sentence is told last, with a hint below; what came before it."""
    with pc.spice_connect("--no-viewer", "vm1") as client:
        assert client.wait(30) == code, client.err()
        assert client.out() == ""
        before, sentence, said = client.err().rpartition("spice-connect: ")
    told, hint = said.splitlines()
    assert sentence
    assert told == reason
    assert hint.startswith("hint: ")
    return before


def test_a_name_that_is_no_host(pc: Client) -> None:
    pc.prefer(HostName="no-such-host.invalid")
    assert "Name or service not known" in refused(pc, "no host called kvm was found")


def test_a_closed_port(pc: Client) -> None:
    pc.prefer(Port=str(free_port()))
    said = refused(pc, "kvm refused the connection")
    assert re.search("Connection refused|Connect call failed", said)


def test_a_host_that_says_nothing(pc: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pc.prefer(Port=str(silent.getsockname()[1]), ConnectTimeout="1")
        refused(pc, "kvm cannot be reached")


def test_a_changed_host_key_is_never_talked_away(stage: Stage, pc: Client) -> None:
    key = pc.home("other-key")
    key.with_suffix(".pub").unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    other = key.with_suffix(".pub").read_text().split()[:2]
    line = f"[127.0.0.1]:{stage.sshd.port} {' '.join(other)}\n"
    pc.prefer(UserKnownHostsFile=own(pc, "changed", line))
    said = refused(pc, "the host key of kvm has changed")
    assert re.search("REMOTE HOST IDENTIFICATION HAS CHANGED|has not its known key", said)


def test_an_unknown_host_key(pc: Client) -> None:
    pc.prefer(UserKnownHostsFile="/dev/null")
    refused(pc, "the host key of kvm is not known here, and was not accepted")


def test_ssh_s_question_reaches_the_terminal(pc: Client) -> None:
    pc.prefer(UserKnownHostsFile="/dev/null", BatchMode="no")
    # In the place of "yes": the built-in ssh asks nothing where that stands at all.
    text = pc.ssh_config.read_text()
    pc.ssh_config.write_text(text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask"))
    program = str(pc.programs / "spice-connect")
    # On a terminal of its own, where somebody types "no" until it is heard.
    typing = (
        f"while sleep 0.2; do echo no; done | script -qec '{program} --no-viewer vm1' /dev/null"
    )
    with pc.run("sh", "-c", typing) as client:
        client.wait(20)
        question, _, said = client.out().partition("(yes/no/[fingerprint])? ")
    assert "authenticity of host" in question
    assert "spice-connect: the host key of kvm is not known here, and was not accepted" in said


def test_a_key_that_the_host_does_not_know(pc: Client) -> None:
    """More than one -i adds up, so the good one is put away."""
    text = pc.ssh_config.read_text()
    pc.ssh_config.write_text(text.replace("IdentityFile", "#"))
    key = pc.home("strange-key")
    key.with_suffix(".pub").unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    pc.prefer(IdentityFile=str(pc.person.owns(key, 0o600)))
    assert "Permission denied" in refused(pc, "kvm did not let you log in")


def test_an_sshd_that_is_too_old(pc: Client) -> None:
    """It offers only what today's ssh no longer takes."""
    with Sshd("old", "KexAlgorithms diffie-hellman-group1-sha1\n") as sshd:
        pc.goes_to(sshd)
        said = refused(pc, "the sshd of kvm is too old for this ssh")
        assert "no matching key exchange" in said.lower()


@pytest.mark.parametrize(("program", "status"), [("/nonexistent/gate", 127), ("/bin/false", 1)])
def test_a_host_without_a_gate(pc: Client, program: str, status: int) -> None:
    """Or with an `open` of its own, as Debian's, in the gate's place."""
    with Sshd(f"bare-{status}", f"ForceCommand exec {program}\n") as sshd:
        pc.goes_to(sshd)
        says = f"; it says: bash: line 1: {program}: No such file or directory"
        told = f"no spicetunnel gate answered on kvm (exit status {status})"
        refused(pc, told + (says if status == 127 else ""), 76)
