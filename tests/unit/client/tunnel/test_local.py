"""On the KVM host itself: the real client, gate and broker, and a viewer that opens one channel."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.stage.machine import GATE, words
from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, Vm, running_server
from tests.unit.client.fakes import Stage, children, eventually

VIEWER = f"""
file = open(sys.argv[1]).read()
path = file.split("unix-path=")[1].split(chr(10))[0]
note("path " + path)
viewer = socket.socket(socket.AF_UNIX)
viewer.connect(path)
viewer.sendall(bytes.fromhex({link().hex()!r}))
while heard := viewer.recv(100):
    note("heard " + heard.decode())
"""
QUICK = "reconnect.PAUSES = (0.2,)"


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def here(stage: Stage, server: Server) -> Stage:
    """A person at the host: no ssh, and the gate as it is installed."""
    path = os.pathsep.join(sys.path)
    gate = f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m spicetunnel.gate "$@"\n'
    (stage.home / "gate").write_text(gate)
    (stage.home / "gate").chmod(0o755)
    stage.ssh('note("ssh was called")')
    stage.viewer(VIEWER)
    configure(stage, server, host='"local:"')
    return stage


def configure(stage: Stage, server: Server, **settings: str) -> None:
    places = {"run-dir": f'"{server.directory}"', "gate": f'"{stage.home}/gate"'}
    stage.configure(**(places | settings))


def seen(stage: Stage, server: Server, vm: Vm, words: bytes = b"hello") -> socket.socket:
    """The VM's end of the viewer's channel, after something has come through it."""
    far = vm.accept()
    server.at_the_end(far.close)
    assert far.recv(100) == link()
    far.sendall(words)
    eventually(lambda: words.decode() in stage.all_noted("heard"))
    return far


def gate_of(client: int) -> int:
    (pid,) = (pid for pid in children(client) if re.search(GATE, words(pid)))
    return pid


def test_the_viewer_gets_to_the_vm_without_any_ssh(here: Stage, server: Server) -> None:
    vm = server.vm("vm1")
    client = here.start("vm1")
    seen(here, server, vm)
    assert here.noted("path") == f"{server.directory}/tunnel.sock"
    assert not here.all_noted("ssh")
    client.terminate()


#: Opens main and display, as a viewer that has got through, and leaves.
THROUGH = f"""
path = open(sys.argv[1]).read().split("unix-path=")[1].split(chr(10))[0]
viewers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for viewer, message in zip(viewers, ({link().hex()!r}, {link(DISPLAY, 7).hex()!r})):
    viewer.connect(path)
    viewer.sendall(bytes.fromhex(message))
    viewer.recv(1)
"""


def closes_its_viewer(here: Stage, server: Server) -> tuple[int, str]:
    vm = server.vm("vm1")
    here.viewer(THROUGH)
    client = here.start("vm1")
    for _ in range(2):
        far = vm.accept()
        server.at_the_end(far.close)
        far.sendall(b"!")
    _, err = client.communicate(timeout=10)
    return client.returncode, err


def test_closing_the_viewer_is_a_good_end(here: Stage, server: Server) -> None:
    assert closes_its_viewer(here, server) == (0, "")
    eventually(lambda: len(server.audit("session-end")) == 1)


def test_where_no_host_is_named_the_broker_of_this_machine_is_asked(
    here: Stage, server: Server
) -> None:
    file = here.home / "config/spice-connect/config.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("host")))
    code, out, err = here.run()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["VM", "vm1", "vm2"]
    server.stop_broker()
    (server.directory / "control.sock").unlink(missing_ok=True)
    assert here.run()[0] == 64


def test_a_named_host_is_still_reached_by_ssh(here: Stage, server: Server) -> None:
    here.run("--host", "kvm")
    assert here.all_noted("ssh")


def test_a_refusal_has_its_code_and_hint(here: Stage, server: Server) -> None:
    code, out, err = here.run("vm3")
    assert (code, out) == (77, "")
    first, hint = err.splitlines()
    assert first == "spice-connect: you may not use 'vm3'"
    assert hint.startswith("hint: ")


def test_a_list_without_a_vm(here: Stage, server: Server) -> None:
    server.use_map("vms: {}\n")
    code, out, err = here.run()
    assert (code, out) == (0, "")
    assert err.startswith("spice-connect: no VM on this machine is yours\n")


def test_no_address_is_claimed(here: Stage, server: Server) -> None:
    """Somebody may have come to this host by ssh, or just say so."""
    here.environment["SSH_CONNECTION"] = "192.0.2.7 5 192.0.2.1 22"
    here.environment["SSH_ORIGINAL_COMMAND"] = "open vm2"
    assert closes_its_viewer(here, server)[0] == 0
    (opened,) = server.audit("open")
    assert (opened["vm"], opened.get("client")) == ("vm1", None)


def test_a_process_beside_the_client_has_no_part_in_its_session(
    here: Stage, server: Server
) -> None:
    """Of the same user, even: the session is what runs below the client."""
    vm = server.vm("vm1")
    client = here.start("vm1")
    seen(here, server, vm)
    beside = server.connect()
    assert refused(beside)
    denied = server.denied("channel")
    assert denied[-1]["pid"] == os.getpid()
    client.terminate()


def refused(sock: socket.socket) -> bool:
    """Whether a viewer there gets nothing: the broker may close before or after it speaks."""
    try:
        sock.sendall(link())
        return sock.recv(1) == b""
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_the_session_comes_back_in_its_own_place(here: Stage, server: Server) -> None:
    vm = server.vm("vm1")
    client = here.start("vm1", patch=QUICK)
    seen(here, server, vm)
    os.kill(gate_of(client.pid), signal.SIGKILL)
    seen(here, server, vm, b"again")
    assert client.stderr
    assert client.stderr.readline() == (
        "spice-connect: the gate on this machine ended; connecting again\n"
    )
    assert client.stderr.readline().startswith("hint: ")
    assert client.stderr.readline() == "spice-connect: connected to this machine again\n"
    assert len(server.audit("open")) == 2
    client.terminate()


def test_no_reconnect(here: Stage, server: Server) -> None:
    vm = server.vm("vm1")
    client = here.start("--no-reconnect", "vm1")
    seen(here, server, vm)
    os.kill(gate_of(client.pid), signal.SIGKILL)
    assert client.wait(10) == 69
    assert here.left_behind() == []


def test_a_session_outlives_its_broker(here: Stage, server: Server) -> None:
    vm = server.vm("vm1")
    client = here.start("vm1")
    far = seen(here, server, vm)
    server.kill_broker()
    server.start()
    eventually(lambda: len(server.audit("resume")) == 1)
    far.sendall(b"and on")
    eventually(lambda: "and on" in here.all_noted("heard"))
    client.terminate()


def test_a_vm_that_is_off_is_waited_for(here: Stage, server: Server) -> None:
    assert here.run("vm1")[0] == 69
    client = here.start("--wait", "vm1")
    assert client.stderr
    assert "waiting for it to start" in client.stderr.readline()
    seen(here, server, server.vm("vm1"))
    client.terminate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_client_is_the_end_of_the_session(
    here: Stage, server: Server, signum: signal.Signals
) -> None:
    vm = server.vm("vm1")
    client = here.start("vm1")
    seen(here, server, vm)
    client.send_signal(signum)
    assert client.wait(10) == (-signum if signum == signal.SIGKILL else 128 + signum)
    eventually(lambda: here.left_behind() == [])
    eventually(lambda: len(server.audit("session-end")) == 1)


def test_without_our_viewer_there_is_no_way_in(here: Stage) -> None:
    """A viewer started elsewhere is not below the client, and the broker would not know it."""
    code, out, err = here.run("--no-viewer", "vm1")
    assert (code, out) == (64, "")
    assert "--no-viewer is of no use\nhint: " in err


def test_no_gate_is_told_with_what_to_do(here: Stage, server: Server) -> None:
    configure(here, server, host='"local:"', gate='"/nonexistent/gate"')
    code, _, err = here.run("vm1")
    assert code == 69
    assert "the gate /nonexistent/gate is not installed on this machine\nhint: set gate" in err


def test_something_else_in_the_place_of_the_gate(here: Stage, server: Server) -> None:
    configure(here, server, host='"local:"', gate='"/bin/false"')
    code, _, err = here.run("vm1")
    assert code == 76
    assert "/bin/false does not answer like a spicetunnel gate (exit status 1)" in err


def test_verbose_tells_what_is_asked(here: Stage, server: Server) -> None:
    err = here.run("-v")[2]
    assert "asking this machine's gate: list --json" in err
    assert f"{here.home}/gate --run-dir {server.directory}" in err
