"""The SPICE password of a VM: people with a grant get it, and nothing that others read holds it."""

import os
from pathlib import Path

import pytest

from tests.unit.broker.server import Server, wait_until

PASSWORD = "tr0ub4dor & three"


@pytest.fixture
def file(server: Server) -> Path:
    """A password file that the map names for both VMs."""
    file = server.directory / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o400)
    use_password_file(server, file)
    return file


def use_password_file(server: Server, file: Path, user: str = "") -> None:
    """Put a map in force that names this password file for both VMs, and grants them to `user`."""
    server.write_map(user or server.user, "vm1", "vm2", vm=f"password-file: {file}")
    server.use_map(server.map.read_text())


def write(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)
    file.chmod(0o600)


def refusal(server: Server) -> dict[str, object]:
    gate = server.gate("open --json vm1")
    said = gate.says()
    assert said["event"] == "refused"
    return said


def test_password_is_in_ready_but_not_in_record_or_log(server: Server, file: Path) -> None:
    server.vm("vm1")
    ready = server.gate("open --json vm1").says()
    assert (ready["event"], ready["password"]) == ("ready", PASSWORD)
    (record,) = (server.directory / "sessions").iterdir()
    assert PASSWORD not in record.read_text()
    assert PASSWORD not in server.log_file.read_text()


def test_password_file_is_read_at_each_open(server: Server, file: Path) -> None:
    server.vm("vm1")
    for password in (PASSWORD, "another one"):
        write(file, password.encode())
        ready = server.other().gate("open --json --take-over vm1")
        assert (ready["event"], ready["password"]) == ("ready", password)


def test_vm_without_a_password_file_has_no_password(server: Server) -> None:
    server.vm("vm1")
    assert "password" not in server.other().gate("open --json vm1")


def test_vm_that_restarts_may_have_another_password(server: Server, file: Path) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    vm.switch_off()
    far.close()
    while (said := gate.says())["event"] == "waiting":
        if "has stopped" in str(said["reason"]):
            write(file, b"another one")
            vm.listen()
            server.at_the_end(vm.listener.close)
    assert (said["event"], said["password"]) == ("ready", "another one")


def test_session_ends_if_the_vm_restarts_without_its_password_file(
    server: Server, file: Path
) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1", "--keep")
    _, far = server.channel(vm)
    file.unlink()
    vm.switch_off()
    far.close()
    while (said := gate.says())["event"] == "waiting":
        if "has stopped" in str(said["reason"]):
            vm.listen()
            server.at_the_end(vm.listener.close)
    assert (said["event"], said["code"]) == ("end", 70)


def test_plain_ssh_does_not_show_the_password(server: Server, file: Path) -> None:
    server.vm("vm1")
    gate = server.gate("open vm1")
    assert gate.process.stdout
    line = gate.process.stdout.readline()
    assert line.startswith("vm1 is ready")
    gate.process.terminate()
    out, err = gate.process.communicate(timeout=10)
    assert PASSWORD not in line + out + err


def test_person_without_a_grant_gets_no_password(server: Server, file: Path) -> None:
    server.vm("vm1")
    use_password_file(server, file, "nobody")
    said = refusal(server)
    assert said["code"] == 77
    assert "password" not in str(said)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "must hold 1 to 60 bytes on one line"),
        (b"\n", "must hold 1 to 60 bytes on one line"),
        (b"x" * 61, "must hold 1 to 60 bytes on one line"),
        (b"one\ntwo\n", "must hold one line of printable text"),
        (b"one\r\n", "must hold one line of printable text"),
        (b"\xff", "must hold one line of printable text"),
    ],
)
def test_open_is_refused_if_the_file_holds_no_valid_password(
    server: Server, file: Path, data: bytes, why: str
) -> None:
    server.vm("vm1")
    write(file, data)
    assert_refused_and_logged(server, f"password-file {file} {why}")


def assert_refused_and_logged(server: Server, why: str) -> None:
    """The log tells the admin exactly why; the person gets a general reason."""
    said = refusal(server)
    assert (said["code"], said["reason"], said["hint"]) == (
        70,
        "the server cannot read the password of 'vm1'",
        "tell the admin of this server",
    )
    (fault,) = server.audit("fault")
    assert (fault["vm"], fault["reason"]) == ("vm1", why)
    assert server.audit("open")[-1]["decision"] == "deny"


@pytest.mark.parametrize(("mode", "word"), [(0o440, "read"), (0o404, "read"), (0o620, "written")])
def test_open_is_refused_if_others_may_read_or_write_the_file(
    server: Server, file: Path, mode: int, word: str
) -> None:
    server.vm("vm1")
    file.chmod(mode)
    assert_refused_and_logged(server, f"password-file {file} may be {word} by others")


def test_open_is_refused_if_the_file_is_missing(server: Server, file: Path) -> None:
    server.vm("vm1")
    file.unlink()
    assert_refused_and_logged(
        server, f"password-file {file} cannot be read: no such file or directory"
    )


def test_open_is_refused_at_once_if_the_file_is_a_fifo(server: Server, file: Path) -> None:
    server.vm("vm1")
    file.unlink()
    os.mkfifo(file, 0o600)
    assert_refused_and_logged(server, f"password-file {file} is not a regular file")


def test_take_over_that_is_refused_does_not_end_the_old_session(server: Server, file: Path) -> None:
    """The first that its gate hears is the end of the person's right, a while later."""
    server.vm("vm1")
    gate = server.open("vm1")
    file.chmod(0o444)
    assert server.other().gate("open --json --take-over vm1")["event"] == "refused"
    wait_until(lambda: server.audit("fault"), "the fault")
    use_password_file(server, file, "nobody")
    assert gate.says()["reason"] == "you may no longer use 'vm1': no grant names you"
