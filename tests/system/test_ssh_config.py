"""What stands in the person's own ssh_config(5) counts: jump hosts, agents, known hosts.

Each with OpenSSH and with the built-in ssh, which does the same or refuses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person, vm1: Vm) -> Client:
    return stage.client(alice)


def first(pc: Client, options: str, host: str = "kvm") -> None:
    """ssh takes the first value it meets."""
    indented = "\n    ".join(options.strip().splitlines())
    pc.ssh_config.write_text(f"Host {host}\n    {indented}\n{pc.ssh_config.read_text()}")


def gets_in(pc: Client) -> str:
    """What was told."""
    with pc.spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice", 20)
        return client.err()


def is_refused(pc: Client, reason: str) -> None:
    with pc.spice_connect("--no-viewer", "vm1") as client:
        assert client.wait(20) == 69, client.out()
        assert reason in client.err()


def setting(pc: Client, name: str) -> str:
    return str(re.findall(rf"{name} (\S+)", pc.ssh_config.read_text())[-1])


def test_over_a_jump_host(stage: Stage, pc: Client) -> None:
    """Where others may forward to ports, as on a host of its own they could."""
    hop = stage.person("hop", gateway=False)
    key = pc.home("key-of-hop")
    key.write_bytes(hop.key.read_bytes())
    pc.person.owns(key, 0o600)
    mark = len(stage.sshd.log())
    known = setting(pc, "UserKnownHostsFile")
    first(pc, "ProxyJump hop")
    first(
        pc,
        f"HostName 127.0.0.1\nPort {stage.sshd.port}\nUser {hop.name}\nIdentityFile {key}\n"
        f"UserKnownHostsFile {known}\nBatchMode yes\nIdentitiesOnly yes",
        "hop",
    )
    config = pc.ssh_config.read_text()
    assert gets_in(pc) == ""
    assert config == pc.ssh_config.read_text()
    assert f"Accepted publickey for {hop.name}" in stage.sshd.log()[mark:]


def test_through_a_proxy_command(pc: Client) -> None:
    first(pc, "ProxyCommand nc %h %p")
    assert gets_in(pc) == ""


@pytest.fixture
def agent(pc: Client) -> Iterator[Path]:
    """One that holds the person's key; there is no file of it."""
    path = pc.home("agent")
    with pc.run("ssh-agent", "-D", "-a", str(path)) as process:
        process.until(path.exists, 10, "the agent's socket")
        with pc.run("ssh-add", str(pc.person.key), env={"SSH_AUTH_SOCK": str(path)}) as adding:
            assert adding.wait() == 0, adding.err()
        yield path


def without_keys(pc: Client) -> None:
    lines = pc.ssh_config.read_text().splitlines()
    kept = [line for line in lines if not re.match(r"\s*Identit", line)]
    pc.ssh_config.write_text("\n".join([*kept, ""]))


def test_by_a_key_in_the_agent(pc: Client, agent: Path) -> None:
    without_keys(pc)
    first(pc, f"IdentityAgent {agent}")
    assert gets_in(pc) == ""


def test_by_the_agent_of_the_environment(pc: Client, agent: Path) -> None:
    without_keys(pc)
    pc.env["SSH_AUTH_SOCK"] = str(agent)
    assert gets_in(pc) == ""


def test_a_key_in_the_agent_that_is_not_named_is_not_offered(pc: Client, agent: Path) -> None:
    without_keys(pc)
    other = pc.home("other")
    pc.home("other.pub")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other))
    public = pc.person.owns(other.with_suffix(".pub"), 0o600)
    first(pc, f"IdentityFile {public}\nIdentityAgent {agent}\nIdentitiesOnly yes")
    is_refused(pc, "kvm did not let you log in")


def host_name(stage: Stage) -> str:
    return f"[127.0.0.1]:{stage.sshd.port}"


def test_a_new_host_is_remembered_without_its_name(stage: Stage, pc: Client) -> None:
    """accept-new, and hashed: what OpenSSH writes, both read. The built-in ssh asks first."""
    known = pc.home("known")
    first(pc, f"UserKnownHostsFile {known}\nStrictHostKeyChecking accept-new\nHashKnownHosts yes")
    if stage.transport == "built-in":
        is_refused(pc, "the host key of kvm is not known here, and was not accepted")
        return
    assert "Permanently added" in gets_in(pc)
    assert "127.0.0.1" not in known.read_text()
    assert run("ssh-keygen", "-F", host_name(stage), "-f", str(known)) != ""
    for transport in "ssh", "built-in":
        stage.transport = transport
        other = stage.client(pc.person)
        first(other, f"UserKnownHostsFile {known}\nStrictHostKeyChecking yes")
        assert gets_in(other) == ""


def test_a_revoked_host_key(stage: Stage, pc: Client) -> None:
    known = own_known_hosts(pc, f"@revoked * {stage.sshd.host_key}\n")
    first(pc, f"UserKnownHostsFile {known}\nStrictHostKeyChecking no")
    with pc.spice_connect("--no-viewer", "vm1") as client:
        assert client.wait(20) == 69, client.out()


def own_known_hosts(pc: Client, text: str) -> Path:
    known = pc.home("own-known-hosts")
    known.write_text(text)
    return pc.person.owns(known, 0o600)


@pytest.fixture(scope="module")
def certified(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, str]]:
    """An sshd whose host key has a certificate, and the authority's key."""
    directory = tmp_path_factory.mktemp("authority")
    authority, key = directory / "authority", directory / "host"
    for path in authority, key:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", "kvm.example"]
    run(*sign, f"{key}.pub")
    drop_in = f"HostKey {key}\nHostCertificate {key}-cert.pub\n{stage.drop_in()}"
    with Sshd("certified", drop_in) as sshd:
        yield sshd, (directory / "authority.pub").read_text()


@pytest.mark.parametrize("alias", ["kvm.example", "other.example"])
def test_a_host_that_an_authority_vouches_for(
    pc: Client, certified: tuple[Sshd, str], alias: str
) -> None:
    """By the name that is in its certificate, and by no other."""
    sshd, authority = certified
    known = own_known_hosts(pc, f"@cert-authority *.example {authority}")
    first(
        pc,
        f"Port {sshd.port}\nHostKeyAlias {alias}\nUserKnownHostsFile {known}\n"
        "StrictHostKeyChecking yes",
    )
    if alias == "kvm.example":
        assert gets_in(pc) == ""
    else:
        is_refused(pc, "the host key of kvm")
