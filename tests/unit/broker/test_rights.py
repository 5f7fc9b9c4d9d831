"""When, where and how much: the map's finer rights, on the path of a session."""

import os
import signal
from datetime import datetime, timedelta

import pytest

from spicetunnel.spice.link import NEED_SECURED, refusal
from tests.unit.broker.house import DISPLAY, House, link, wait_until

INPUTS, USBREDIR, UNHEARD_OF = 3, 9, 77


def use(house: House, conditions: str) -> None:
    """Put a map in force in which our grant has these conditions."""
    before = len(house.audit("map"))
    house.write_map(house.user, "vm1", grant=f", {conditions}" if conditions else "")
    os.kill(house.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(house.audit("map")) > before, "the reload")
    assert house.audit("map")[-1]["decision"] == "allow", house.audit("map")[-1]


def refused_code(house: House, kind: int) -> bytes:
    viewer = house.connect()
    viewer.sendall(link(kind, 7))
    data = b""
    while part := viewer.recv(1000):
        data += part
    return data


@pytest.fixture
def days() -> tuple[str, str]:
    """Yesterday and tomorrow, as the map's dates."""
    today = datetime.now().astimezone().date()
    return str(today - timedelta(days=1)), str(today + timedelta(days=1))


def test_view_only_denies_input_and_devices_and_leaves_the_screen(house: House) -> None:
    use(house, "view-only: true")
    vm = house.vm("vm1")
    house.open("vm1")
    house.channel(vm)
    house.channel(vm, DISPLAY)
    for kind in (INPUTS, USBREDIR, UNHEARD_OF):
        assert refused_code(house, kind) == refusal(NEED_SECURED)
    denied = [line for line in house.audit("channel") if line["decision"] == "deny"]
    assert [line["reason"] for line in denied] == [
        "inputs is not granted",
        "usbredir is not granted",
        "type-77 is not granted",
    ]
    assert house.audit("open")[0]["denied"] == [
        "inputs",
        "record",
        "smartcard",
        "usbredir",
        "webdav",
    ]


def test_full_grant_denies_no_channel_not_even_one_of_the_future(house: House) -> None:
    use(house, "")
    vm = house.vm("vm1")
    house.open("vm1")
    house.channel(vm)
    for kind in (INPUTS, USBREDIR, UNHEARD_OF):
        house.channel(vm, kind)


def test_right_taken_from_a_running_session_cuts_its_channel_only(house: House) -> None:
    use(house, "")
    vm = house.vm("vm1")
    house.open("vm1")
    viewer, far = house.channel(vm)
    _, inputs = house.channel(vm, INPUTS)
    _, unheard_of = house.channel(vm, UNHEARD_OF)
    use(house, "view-only: true")
    assert inputs.recv(1) == b""
    assert unheard_of.recv(1) == b""
    viewer.sendall(b"still here")
    assert far.recv(100) == b"still here"
    assert refused_code(house, INPUTS) == refusal(NEED_SECURED)


def test_before_the_first_day(house: House, days: tuple[str, str]) -> None:
    use(house, f"starts: {days[1]}")
    house.vm("vm1")
    refused = house.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert refused["reason"] == "you may not use 'vm1' now"
    assert f"your next window opens {days[1]} at 00:00" in str(refused["hint"]).replace(
        f"{datetime.fromisoformat(days[1]):%a} ", ""
    )


def test_list_tells_when_a_closed_vm_opens(house: House, days: tuple[str, str]) -> None:
    use(house, f"starts: {days[1]}")
    house.vm("vm1")
    rows = house.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert rows[0]["state"] == "closed"
    assert rows[0]["next"].startswith(f"{days[1]}T00:00:00")
    table, _ = house.gate("list").process.communicate(timeout=10)
    assert f"opens {days[1]} 00:00" in table


def test_ready_tells_until_when(house: House, days: tuple[str, str]) -> None:
    use(house, f"ends: {days[1]}")
    house.vm("vm1")
    ready = house.gate("open --json vm1").says()
    day_after = str(datetime.fromisoformat(days[1]).date() + timedelta(days=1))
    assert str(ready["until"]).startswith(f"{day_after}T00:00:00")


def test_last_day_that_passes_ends_the_running_session(house: House, days: tuple[str, str]) -> None:
    use(house, "")
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    use(house, f"ends: {days[0]}")
    assert gate.says()["reason"] == "you may no longer use 'vm1': your window is over"
    assert far.recv(1) == b""


def test_nobody_is_at_the_console_of_a_machine_without_logind(house: House) -> None:
    use(house, "where: console")
    house.vm("vm1")
    refused = house.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "only at the console of this server" in str(refused["reason"])


def test_address_told_by_a_gate_that_is_no_login_shell_is_not_believed(house: House) -> None:
    """The house's gates say 192.0.2.7, and any program of the user's could say so."""
    use(house, "from: 192.0.2.0/24")
    house.vm("vm1")
    refused = house.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "the address is not believed" in str(refused["reason"])


def test_vm_from_vms_d_is_in_force_and_followed(house: House) -> None:
    directory = house.directory / "vms.d"
    directory.mkdir()
    part = directory / "more.yaml"
    text = f"vms: {{vm7: {{socket: {house.directory}/vm7, allow: [{{user: {house.user}}}]}}}}\n"
    part.write_text(text)
    wait_until(lambda: len(house.audit("map")) == 2, "the broker to see the new file")
    house.vm("vm7")
    gate = house.open("vm7")
    part.unlink()
    assert gate.says()["code"] == 77


def test_stray_files_in_vms_d_are_not_the_maps(house: House) -> None:
    directory = house.directory / "vms.d"
    directory.mkdir()
    (directory / ".more.yaml.swp").write_text("garbage: [")
    (directory / "README").write_text("garbage: [")
    os.kill(house.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(house.audit("map")) == 2, "the reload")
    assert house.audit("map")[1]["decision"] == "allow"
