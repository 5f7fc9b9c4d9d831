"""The SPICE password of a VM: to those with a grant, and into nothing that others read."""

import os
from pathlib import Path

import pytest

from tests.unit.broker.house import House, wait_until

PASSWORD = "tr0ub4dor & three"


@pytest.fixture
def file(house: House) -> Path:
    """The password file of both VMs, which are on."""
    file = house.directory / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o400)
    name_file(house, file)
    return file


def name_file(house: House, file: Path, user: str = "") -> None:
    house.write_map(user or house.user, "vm1", "vm2", vm=f"password-file: {file}")
    house.use_map(house.map.read_text())


def write(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)
    file.chmod(0o600)


def refusal(house: House) -> dict[str, object]:
    gate = house.gate("open --json vm1")
    said = gate.says()
    assert said["event"] == "refused"
    return said


def test_it_comes_with_ready_and_is_nowhere_else(house: House, file: Path) -> None:
    house.vm("vm1")
    ready = house.gate("open --json vm1").says()
    assert (ready["event"], ready["password"]) == ("ready", PASSWORD)
    (record,) = (house.directory / "sessions").iterdir()
    assert PASSWORD not in record.read_text()
    assert PASSWORD not in house.log_file.read_text()


def test_it_is_read_anew_each_time(house: House, file: Path) -> None:
    house.vm("vm1")
    for password in (PASSWORD, "another one"):
        write(file, password.encode())
        ready = house.other().gate("open --json --take-over vm1")
        assert (ready["event"], ready["password"]) == ("ready", password)


def test_without_a_file_there_is_none(house: House) -> None:
    house.vm("vm1")
    assert "password" not in house.other().gate("open --json vm1")


def test_a_vm_that_starts_again_may_have_another(house: House, file: Path) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    vm.switch_off()
    far.close()
    while (said := gate.says())["event"] == "waiting":
        if "has stopped" in str(said["reason"]):
            write(file, b"another one")
            vm.listen()
            house.at_the_end(vm.listener.close)
    assert (said["event"], said["password"]) == ("ready", "another one")


def test_a_vm_that_starts_again_without_its_file_ends_the_session(house: House, file: Path) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1", "--keep")
    _, far = house.channel(vm)
    file.unlink()
    vm.switch_off()
    far.close()
    while (said := gate.says())["event"] == "waiting":
        if "has stopped" in str(said["reason"]):
            vm.listen()
            house.at_the_end(vm.listener.close)
    assert (said["event"], said["code"]) == ("end", 70)


def test_plain_ssh_does_not_show_it(house: House, file: Path) -> None:
    house.vm("vm1")
    gate = house.gate("open vm1")
    assert gate.process.stdout
    line = gate.process.stdout.readline()
    assert line.startswith("vm1 is ready")
    gate.process.terminate()
    out, err = gate.process.communicate(timeout=10)
    assert PASSWORD not in line + out + err


def test_who_has_no_grant_gets_nothing(house: House, file: Path) -> None:
    house.vm("vm1")
    name_file(house, file, "nobody")
    said = refusal(house)
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
def test_what_is_no_password_lets_nobody_in(
    house: House, file: Path, data: bytes, why: str
) -> None:
    house.vm("vm1")
    write(file, data)
    refused_for(house, f"password-file {file} {why}")


def refused_for(house: House, why: str) -> None:
    """A clear line for the admin, and a plain one for the person."""
    said = refusal(house)
    assert (said["code"], said["reason"], said["hint"]) == (
        70,
        "the server cannot read the password of 'vm1'",
        "tell the admin of this server",
    )
    (fault,) = house.audit("fault")
    assert (fault["vm"], fault["reason"]) == ("vm1", why)
    assert house.audit("open")[-1]["decision"] == "deny"


@pytest.mark.parametrize(("mode", "word"), [(0o440, "read"), (0o404, "read"), (0o620, "written")])
def test_a_file_that_others_can_reach_lets_nobody_in(
    house: House, file: Path, mode: int, word: str
) -> None:
    house.vm("vm1")
    file.chmod(mode)
    refused_for(house, f"password-file {file} may be {word} by others")


def test_a_file_that_is_not_there_lets_nobody_in(house: House, file: Path) -> None:
    house.vm("vm1")
    file.unlink()
    refused_for(house, f"password-file {file} cannot be read: no such file or directory")


def test_a_fifo_stalls_nobody(house: House, file: Path) -> None:
    house.vm("vm1")
    file.unlink()
    os.mkfifo(file, 0o600)
    refused_for(house, f"password-file {file} is not a regular file")


def test_nobody_loses_the_seat_to_somebody_who_cannot_get_in(house: House, file: Path) -> None:
    house.vm("vm1")
    house.open("vm1")
    file.chmod(0o444)
    assert house.other().gate("open --json --take-over vm1")["event"] == "refused"
    wait_until(lambda: house.audit("fault"), "the fault")
    assert not house.audit_ends()
