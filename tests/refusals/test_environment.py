"""No file or variable of the user replaces the gate or changes what it does.

Code that does run before the gate (bash reads ~/.bashrc) runs as the user, and gains no rights.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.refusals.attacker import (
    canary,
    execute,
    local_socket,
    request,
    transport,
    visit,
    wait_for_socket,
)
from tests.stage.broker import CONTROL, TUNNEL
from tests.stage.command import run
from tests.stage.machine import end_processes
from tests.stage.spice import link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture(autouse=True)
def _running(broker: Broker, vm1: Vm) -> None:
    """Broker and vm1 run, so that no refusal is due to their absence."""


@pytest.fixture
def own_file(alice: Person) -> Iterator[_OwnFiles]:
    files = _OwnFiles(alice)
    yield files
    files.restore()


class _OwnFiles:
    """Files in alice's home, restored afterwards."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._before: dict[Path, str | None] = {}

    def write(self, name: str, text: str, mode: int = 0o755) -> Path:
        path = self._person.home / name
        self._before.setdefault(path, path.read_text() if path.exists() else None)
        path.write_text(text)
        return self._person.owns(path, mode)

    def restore(self) -> None:
        for path, text in self._before.items():
            if text is None:
                path.unlink()
            else:
                path.write_text(text)


def test_ssh_rc_does_not_run(sshd: Sshd, alice: Person, own_file: _OwnFiles) -> None:
    target = canary(alice, "rc")
    own_file.write(".ssh/rc", f"touch {target}\n")
    assert execute(sshd.login(alice), b"whoami")[0] == 0
    assert not target.exists()


def test_ssh_environment_is_not_read(sshd: Sshd, alice: Person, own_file: _OwnFiles) -> None:
    """The stage's sshd sets PermitUserEnvironment yes; the drop-in, which is read first, no."""
    target = canary(alice, "environment")
    hook = own_file.write("hook.sh", f"touch {target}\n")
    own_file.write(
        ".ssh/environment", f"BASH_ENV={hook}\nENV={hook}\nSSH_CONNECTION=6.6.6.6 1 2 3\n"
    )
    assert execute(sshd.login(alice), b"whoami")[0] == 0
    assert not target.exists()


@pytest.mark.parametrize("name", ["BASH_ENV", "ENV", "PROMPT_COMMAND", "SSH_ORIGINAL_COMMAND"])
def test_environment_sent_by_the_client_is_ignored(
    sshd: Sshd, alice: Person, own_file: _OwnFiles, name: str
) -> None:
    """The stage's sshd sets AcceptEnv *."""
    target = canary(alice, "sent")
    hook = own_file.write("hook.sh", f"touch {target}\n")
    with transport(sshd.login(alice)) as connection:
        channel = connection.open_session(timeout=10)
        channel.settimeout(10)
        channel.set_environment_variable(name, str(hook))  # asks for no reply
        assert request(channel, b"exec", b"whoami")
        assert b"user: st-alice" in channel.recv(1000)
    assert not target.exists()


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT"])
def test_python_environment_does_not_reach_the_gates_imports(
    stage: Stage, alice: Person, own_file: _OwnFiles, name: str
) -> None:
    """Python runs in isolated mode, so even variables that sshd accepts have no effect."""
    target = canary(alice, "python")
    own_file.write("sitecustomize.py", f"open({str(target)!r}, 'w')\n")
    own_file.write("json.py", f"open({str(target)!r}, 'w')\n")
    gate = [str(stage.programs / "spicetunnel-gate"), "--run-dir", str(CONTROL.parent)]
    said = run(*_as(alice), *gate, env={name: str(alice.home), "SSH_ORIGINAL_COMMAND": "whoami"})
    assert "user: st-alice" in said
    assert not target.exists()


def _as(person: Person) -> list[str]:
    return ["setpriv", f"--reuid={person.uid}", f"--regid={person.gid}", "--clear-groups", "--"]


def test_current_directory_does_not_reach_the_gates_imports(
    stage: Stage, alice: Person, own_file: _OwnFiles
) -> None:
    """sshd starts the gate in the user's home."""
    target = canary(alice, "cwd")
    for module in ("json", "socket", "select", "spicetunnel"):
        own_file.write(f"{module}.py", f"open({str(target)!r}, 'w')\n")
    assert execute(stage.sshd.login(alice), b"whoami")[0] == 0
    assert not target.exists()


def test_client_cannot_choose_its_address_in_the_log(stage: Stage, alice: Person) -> None:
    mark = stage.broker.mark()
    ssh = stage.gate_ssh(alice, "whoami", "-o", "SetEnv=SSH_CONNECTION=6.6.6.6")
    assert ssh.wait() == 0
    execute(stage.sshd.login(alice), b"list")
    line = stage.broker.wait_audit(lambda line: line["event"] == "list", since=mark)
    assert line["client"] == "127.0.0.1"


FORGER = textwrap.dedent(
    """\
    import json, socket, sys
    found = {}
    def ask(message):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(5)
        s.connect(sys.argv[1])
        s.send(json.dumps(message).encode())
        try:
            answer = json.loads(s.recv(65536) or b'null')
        except OSError as error:
            answer = repr(error)
        kept.append(s)
        return answer
    kept = []
    forged = {"v": 1, "op": "open", "vm": "vm2", "user": "st-bob", "uid": 0, "as": "st-bob",
              "pid": 1, "take_over": True, "from": "127.0.0.1 1 127.0.0.1 22"}
    found["vm2"] = ask(forged)
    found["whoami"] = ask({"v": 1, "op": "whoami", "user": "root", "uid": 0})
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(sys.argv[2])
        found["vm2 socket"] = "connected"
    except OSError as error:
        found["vm2 socket"] = type(error).__name__
    json.dump(found, open(sys.argv[3], "w"))
    """
)


def test_hostile_bashrc_gains_nothing(
    stage: Stage, alice: Person, vm2: Vm, own_file: _OwnFiles
) -> None:
    """It runs as the user and as a child of sshd, like a gate. The broker grants it no more."""
    report = canary(alice, "forger")
    forger = own_file.write("forger.py", FORGER)
    line = f"/usr/bin/python3 {forger} {CONTROL} {vm2.socket} {report}\n"
    own_file.write(".bashrc", line, 0o644)
    clients = vm2.spice_clients()
    assert execute(stage.sshd.login(alice), b"whoami")[0] == 0
    found = json.loads(report.read_text())
    assert found["vm2"]["event"] == "refused"
    assert found["vm2"]["code"] == 77
    assert found["whoami"]["user"] == alice.name
    assert found["vm2 socket"] == "PermissionError"
    assert vm2.spice_clients() == clients


def test_bashrc_in_place_of_the_gate_opens_no_tunnel(
    stage: Stage, alice: Person, own_file: _OwnFiles
) -> None:
    """A program of the user prints `ready`. The broker knows no session and denies the channel."""
    own_file.write(".bashrc", "echo vm1 is ready; exec sleep 60\n", 0o644)
    near = local_socket("near")
    with stage.gate_ssh(alice, "open vm1", forwards=(f"{near}:{TUNNEL}",)) as ssh:
        ssh.says("vm1 is ready")
        wait_for_socket(near, ssh)
        mark = stage.broker.mark()
        assert visit(near, link()) == b""
        line = stage.broker.wait_audit(lambda line: line["event"] == "channel", since=mark)
        assert line["decision"] == "deny"
        assert line["uid"] == alice.uid
    end_processes({alice.uid})  # sshd does not end processes that a user left running
