"""Why OpenSSH does not get in, in its own words: each cause has its own sentence and hint, whatever
LogLevel the person has set."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.sockets import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture(params=["INFO", "QUIET"])
def pc(
    stage: Stage, broker: Broker, alice: Person, vm1: Vm, request: pytest.FixtureRequest
) -> Client:
    del broker, vm1
    pc = stage.client(alice)
    pc.prefer(LogLevel=request.param)
    return pc


def is_told(pc: Client, reason: str, hint: str, code: int = 69) -> None:
    with pc.spice_connect("--no-viewer", "vm1") as client:
        assert client.wait(30) == code, client.err()
        *_, told, advice = client.err().splitlines()
    assert told == f"spice-connect: {reason}"
    assert advice == f"hint: {hint}"


def test_a_closed_port(pc: Client) -> None:
    pc.prefer(Port=str(free_port()))
    is_told(
        pc,
        "kvm refused the connection",
        "does sshd run there, and on the port of your ssh configuration? its admin knows",
    )


def test_a_name_that_is_no_host(pc: Client) -> None:
    pc.prefer(HostName="no-such-host.invalid")
    is_told(
        pc,
        "no host called kvm was found",
        "check the name, and the network this machine is in (a VPN?)",
    )


def test_an_unknown_host_key(pc: Client) -> None:
    pc.prefer(UserKnownHostsFile="/dev/null")
    is_told(
        pc,
        "the host key of kvm is not known here, and was not accepted",
        "ask its admin for the fingerprint, log in by ssh once, and compare the two",
    )


def strange_key(pc: Client) -> Path:
    key = pc.home("strange-key")
    key.with_suffix(".pub").unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    return pc.person.owns(key, 0o600)


def test_a_key_that_the_host_does_not_know(pc: Client) -> None:
    text = pc.ssh_config.read_text()
    pc.ssh_config.write_text(text.replace("IdentityFile", "#"))
    pc.prefer(IdentityFile=str(strange_key(pc)))
    is_told(
        pc,
        "kvm did not let you log in",
        "does it know your user name, and your key or password? its admin does",
    )


def test_a_key_that_others_can_read(pc: Client) -> None:
    (key,) = pc.ssh_config.parent.glob("key-*")
    key.chmod(0o644)
    is_told(pc, f"ssh does not use {key}: others can read it", f"chmod 600 {key}")


def test_an_option_that_ssh_does_not_know(pc: Client) -> None:
    pc.prefer(Ciphres="aes256-ctr")
    is_told(
        pc,
        f"ssh does not take your configuration: {pc.ssh_config}: line 2: "
        "Bad configuration option: ciphres",
        "mend what it names; ssh kvm says the same",
    )


def test_a_value_that_ssh_does_not_take(pc: Client) -> None:
    pc.prefer(Port="abc")
    is_told(
        pc,
        f"ssh does not take your configuration: {pc.ssh_config} line 2: Bad port 'abc'.",
        "mend what it names; ssh kvm says the same",
    )


@pytest.fixture
def config(pc: Client) -> Iterator[Path]:
    """The person's usual ~/.ssh/config, and no other."""
    file = pc.home(".ssh/config")
    file.write_text(pc.ssh_config.read_text())
    pc.person.owns(file, 0o666)
    pc.configure(ssh=["ssh"])
    yield file
    file.unlink()


def test_a_configuration_that_others_can_write(pc: Client, config: Path) -> None:
    is_told(pc, f"ssh does not use {config}: others can write to it", f"chmod 600 {config}")


def test_a_configuration_that_is_not_there(pc: Client) -> None:
    pc.configure(ssh=["ssh", "-F", "/nonexistent/config"])
    is_told(
        pc,
        "ssh does not take your configuration: Can't open user config file "
        "/nonexistent/config: No such file or directory",
        "mend what it names; ssh kvm says the same",
    )


def hop(pc: Client, **options: str) -> None:
    lines = "".join(f"    {name} {value}\n" for name, value in options.items())
    pc.ssh_config.write_text(f"Host hop\n{lines}{pc.ssh_config.read_text()}")


def test_a_jump_host_that_is_closed(pc: Client) -> None:
    pc.prefer(ProxyJump="hop")
    hop(pc, HostName="127.0.0.1", Port=str(free_port()))
    is_told(
        pc,
        "hop, the jump host on the way to kvm, refused the connection",
        "does sshd run there, and on the port of your ssh configuration? its admin knows",
    )


def test_a_jump_host_that_does_not_let_in(stage: Stage, pc: Client) -> None:
    known = stage.sshd.known_hosts
    pc.prefer(ProxyJump="nobody@hop")
    hop(
        pc,
        HostName="127.0.0.1",
        Port=str(stage.sshd.port),
        BatchMode="yes",
        IdentityAgent="none",
        UserKnownHostsFile=str(known),
        LogLevel="INFO",
    )
    is_told(
        pc,
        "hop, the jump host on the way to kvm, did not let you log in",
        "does it know your user name, and your key or password? its admin does",
    )


def test_a_jump_host_that_says_nothing(stage: Stage, pc: Client) -> None:
    """Its ssh is another one, whose words are the person's to silence."""
    pc.prefer(ProxyJump="one,nobody@hop")
    for name in "hop", "one":
        pc.ssh_config.write_text(
            f"Host {name}\n    HostName 127.0.0.1\n    Port {free_port()}\n    LogLevel QUIET\n"
            + pc.ssh_config.read_text()
        )
    is_told(
        pc,
        "the jump hosts one and hop, on the way to kvm, did not let ssh through",
        "what does `ssh -J one nobody@hop` say?",
    )


def test_a_proxy_command_that_fails(pc: Client) -> None:
    pc.prefer(ProxyCommand="/nonexistent/proxy %h")
    with pc.spice_connect("--no-viewer", "vm1") as client:
        assert client.wait(30) == 69
        *_, told, hint = client.err().splitlines()
    assert told.startswith("spice-connect: the ProxyCommand on the way to kvm ended")
    assert "/nonexistent/proxy" in told
    assert hint.startswith("hint: ")


@pytest.fixture
def abrupt() -> Iterator[int]:
    """A port where somebody hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_host_that_hangs_up_at_once(pc: Client, abrupt: int) -> None:
    pc.prefer(Port=str(abrupt))
    is_told(
        pc,
        "kvm hung up at once",
        "its sshd may be overloaded, or refuse your address; its admin sees why in its log",
    )


def test_a_local_fault_is_not_tried_again(stage: Stage, pc: Client, broker: Broker) -> None:
    """During an outage, too: it will not go away by itself."""
    with pc.spice_connect("--no-viewer", "vm1") as client:
        client.says("/spice\n", 20)
        pc.prefer(Ciphres="x")
        (ssh,) = [pid for pid in children(client.pid) if comm(pid) == "ssh"]
        # As a network that is gone: sshd's end of the connection dies.
        sever(stage, pc.person)
        assert ssh
        assert client.wait(20) == 69
        assert "ssh does not take your configuration" in client.err()


def children(pid: int) -> list[int]:
    from pathlib import Path

    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comm(pid: int) -> str:
    from pathlib import Path

    return Path(f"/proc/{pid}/comm").read_text().rstrip()


def sever(stage: Stage, person: Person) -> None:
    """End sshd's process of this person's connection."""
    import os
    import re
    import signal

    from tests.stage.machine import processes, words

    for pid in processes({person.uid}):
        if re.match(rf"sshd: {person.name}@", words(pid)):
            os.kill(pid, signal.SIGKILL)
