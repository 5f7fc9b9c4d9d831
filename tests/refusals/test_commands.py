"""No shell: whatever is sent as a command, only the gate runs and parses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.refusals.attacker import canary, execute, request, transport
from tests.stage.machine import LOGS
from tests.stage.process import Process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture(autouse=True)
def _running(broker: Broker, vm1: Vm) -> None:
    """Broker and vm1 run, so that no refusal is due to their absence."""


@pytest.mark.parametrize(
    "command",
    [
        b"id",
        b"/bin/sh",
        b"bash -i",
        b"open vm1; touch CANARY",
        b"open vm1 && touch CANARY",
        b"open vm1 | touch CANARY",
        b"open vm1 & touch CANARY",
        b"open $(touch CANARY)",
        b"open `touch CANARY`",
        b"open vm1 > CANARY",
        b"open vm1\ntouch CANARY",
        b"open vm1\r\ntouch CANARY\r\n",
        b"\ntouch CANARY",
        b"' ; touch CANARY ; '",
        b'" ; touch CANARY ; "',
        b"open vm1\x1b]0;owned\x07",
        b"open ../../vm1",
        b"open /run/spicetunnel-stage/vms/vm1.sock",
        b"open --take-over --take-over vm1",
        b"open -oProxyCommand=id",
        b"open vm\xff\xfe1",
        b"\xff" * 100,
        "open vm\uff11".encode(),  # a full-width 1
        b"open " + b"A" * 65,
        b"x" * 65536,
        b"open vm1 " + b" " * 65536,
        b"help; id",
        b"list vm1",
        b"scp -t /tmp",
        b"scp -f /etc/passwd",
        b"rsync --server . /tmp",
        b"git-upload-pack x",
        b"internal-sftp",
        b"/usr/lib/openssh/sftp-server",
        b"exec sh",
        b"env",
        b"-c id",
        b"--run-dir /tmp",
    ],
)
def test_hostile_command_is_refused(
    stage: Stage, sshd: Sshd, alice: Person, command: bytes
) -> None:
    mark = stage.broker.mark()
    target = canary(alice, "command")
    code, out, err = execute(sshd.login(alice), command.replace(b"CANARY", bytes(target)))
    assert code == 64
    assert out == b""
    assert err.startswith(b"spicetunnel: not a command of this gateway: '")
    assert b"\nhint: " in err
    assert err.decode("ascii").replace("\n", "").isprintable()
    assert len(err) < 400
    assert not target.exists()
    line = stage.broker.wait_audit(lambda line: line["event"] == "command", since=mark)
    assert (line["decision"], line["user"], line["client"]) == ("deny", alice.name, "127.0.0.1")
    assert len(json.dumps(line)) < 2000


@pytest.mark.parametrize("command", [b"whoami\x00", b"\x00", b"whoami\x00; touch CANARY"])
def test_command_with_a_nul_is_cut_or_refused(sshd: Sshd, alice: Person, command: bytes) -> None:
    """sshd refuses the request or cuts it at the NUL. Nothing after the NUL takes effect."""
    target = canary(alice, "nul")
    code, out, _ = execute(sshd.login(alice), command.replace(b"CANARY", bytes(target)))
    assert code in {-1, 0, 64}
    assert b"touch" not in out
    assert not target.exists()


@pytest.mark.parametrize("size", [200_000, 10_000_000])
def test_command_too_long_for_the_kernel_fails(sshd: Sshd, alice: Person, size: int) -> None:
    code, out, _ = execute(sshd.login(alice), b"x" * size)
    assert code != 0
    assert out == b""


def test_no_shell_without_a_command(stage: Stage, alice: Person) -> None:
    """`ssh kvm` without a command prints the list. Input is ignored."""
    target = canary(alice, "shell")
    typed = LOGS / "typed"
    typed.write_text(f"touch {target}\nid\n")
    argv = stage.sshd.ssh_argv(alice, "-T")
    with typed.open("rb") as stdin, Process(argv, LOGS / "no-shell", stdin=stdin) as ssh:
        assert ssh.wait() == 0
        assert ssh.out().splitlines()[0].split() == ["VM", "STATE", "TITLE"]
        assert "uid=" not in ssh.out()
    assert not target.exists()


def test_sftp_is_refused(sshd: Sshd, alice: Person) -> None:
    argv = sshd.ssh_argv(alice)
    argv[0] = "sftp"
    argv.insert(-2, "-b")
    argv.insert(-2, "/dev/null")
    with Process(argv, LOGS / "sftp") as sftp:
        assert sftp.wait() == 255
        assert "sftp>" not in sftp.out()


def test_sftp_subsystem_gets_the_gate_instead(sshd: Sshd, alice: Person) -> None:
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        channel.settimeout(10)
        assert request(channel, b"subsystem", b"sftp")
        channel.sendall(b"\x00\x00\x00\x05\x01\x00\x00\x00\x03")  # SSH_FXP_INIT
        assert channel.recv(100) == b""
        assert channel.recv_exit_status() == 64


@pytest.mark.parametrize("subsystem", [b"netconf", b"", b"sh", b"x" * 70000])
def test_unknown_subsystem_is_refused(sshd: Sshd, alice: Person, subsystem: bytes) -> None:
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        assert not request(channel, b"subsystem", subsystem)


@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize("old", [(), ("-O",)])
def test_scp_is_refused(
    sshd: Sshd, alice: Person, tmp_path: Path, direction: str, old: tuple[str, ...]
) -> None:
    target = canary(alice, "scp")
    argv = ["scp", *old, "-F", "/dev/null", "-P", str(sshd.port)]
    for option, value in sshd.options(alice).items():
        argv += ["-o", f"{option}={value}"]
    here, there = str(tmp_path / "here"), f"127.0.0.1:{target}"
    (tmp_path / "here").write_text("x")
    argv += [here, there] if direction == "in" else ["127.0.0.1:/etc/hostname", here]
    with Process(argv, LOGS / "scp") as scp:
        assert scp.wait() != 0
    assert not target.exists()
    assert (tmp_path / "here").read_text() == "x"


def test_shell_request_gets_the_list(sshd: Sshd, alice: Person) -> None:
    target = canary(alice, "shell-request")
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        channel.settimeout(10)
        assert request(channel, b"shell")
        channel.sendall(f"touch {target}\n".encode())
        assert b"STATE" in channel.recv(1000)
        assert channel.recv_exit_status() == 0
    assert not target.exists()


def test_refusal_does_not_tell_which_vms_exist(sshd: Sshd, alice: Person) -> None:
    """vm2 is bob's and vm99 does not exist. alice gets the same answer for both."""
    bobs, nobodys = (execute(sshd.login(alice), b"open " + vm) for vm in (b"vm2", b"vm99"))
    assert bobs[0] == nobodys[0] == 77
    assert bobs[2].replace(b"vm2", b"vm99") == nobodys[2]


@pytest.mark.parametrize("command", [b"open vm1", b"open --take-over vm1", b"open --json vm1"])
def test_person_without_a_grant_is_refused(sshd: Sshd, mallory: Person, command: bytes) -> None:
    code, out, err = execute(sshd.login(mallory), command)
    assert code == 77
    said = out + err
    assert b"you may not use 'vm1'" in said
    assert b"hint" in said


def test_list_shows_no_vms_of_others(sshd: Sshd, alice: Person, mallory: Person) -> None:
    _, out, _ = execute(sshd.login(alice), b"list --json")
    assert [vm["name"] for vm in json.loads(out)["vms"]] == ["vm1", "vm3"]
    _, out, _ = execute(sshd.login(mallory), b"list")
    assert out == b"there is no VM that you may use\n"
