"""When, where and how much: the map's finer rights, on the path of a session."""

import os
import signal
from datetime import datetime, timedelta

import pytest

from spicetunnel.spice.link import NEED_SECURED, refusal
from tests.unit.broker.server import DISPLAY, Server, link, wait_until

INPUTS, USBREDIR, UNHEARD_OF = 3, 9, 77


def use(server: Server, conditions: str) -> None:
    """Put a map in force in which our grant has these conditions."""
    before = len(server.audit("map"))
    server.write_map(server.user, "vm1", grant=f", {conditions}" if conditions else "")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) > before, "the reload")
    assert server.audit("map")[-1]["decision"] == "allow", server.audit("map")[-1]


def refused_code(server: Server, kind: int) -> bytes:
    viewer = server.connect()
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


def test_view_only_denies_input_and_devices_and_leaves_the_screen(server: Server) -> None:
    use(server, "view-only: true")
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    server.channel(vm, DISPLAY)
    for kind in (INPUTS, USBREDIR, UNHEARD_OF):
        assert refused_code(server, kind) == refusal(NEED_SECURED)
    denied = [line for line in server.audit("channel") if line["decision"] == "deny"]
    assert [line["reason"] for line in denied] == [
        "inputs is not granted",
        "usbredir is not granted",
        "type-77 is not granted",
    ]
    assert server.audit("open")[0]["denied"] == [
        "inputs",
        "record",
        "smartcard",
        "usbredir",
        "webdav",
    ]


def test_full_grant_denies_no_channel_not_even_one_of_the_future(server: Server) -> None:
    use(server, "")
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    for kind in (INPUTS, USBREDIR, UNHEARD_OF):
        server.channel(vm, kind)


def test_right_taken_from_a_running_session_cuts_its_channel_only(server: Server) -> None:
    use(server, "")
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    _, inputs = server.channel(vm, INPUTS)
    _, unheard_of = server.channel(vm, UNHEARD_OF)
    use(server, "view-only: true")
    assert inputs.recv(1) == b""
    assert unheard_of.recv(1) == b""
    viewer.sendall(b"still here")
    assert far.recv(100) == b"still here"
    assert refused_code(server, INPUTS) == refusal(NEED_SECURED)


def test_before_the_first_day(server: Server, days: tuple[str, str]) -> None:
    use(server, f"starts: {days[1]}")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert refused["reason"] == "you may not use 'vm1' now"
    assert f"your next window opens {days[1]} at 00:00" in str(refused["hint"]).replace(
        f"{datetime.fromisoformat(days[1]):%a} ", ""
    )


def test_list_tells_when_a_closed_vm_opens(server: Server, days: tuple[str, str]) -> None:
    use(server, f"starts: {days[1]}")
    server.vm("vm1")
    rows = server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert rows[0]["state"] == "closed"
    assert rows[0]["next"].startswith(f"{days[1]}T00:00:00")
    table, _ = server.gate("list").process.communicate(timeout=10)
    assert f"opens {days[1]} 00:00" in table


def test_ready_tells_until_when(server: Server, days: tuple[str, str]) -> None:
    use(server, f"ends: {days[1]}")
    server.vm("vm1")
    ready = server.gate("open --json vm1").says()
    day_after = str(datetime.fromisoformat(days[1]).date() + timedelta(days=1))
    assert str(ready["until"]).startswith(f"{day_after}T00:00:00")


def test_last_day_that_passes_ends_the_running_session(
    server: Server, days: tuple[str, str]
) -> None:
    use(server, "")
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    use(server, f"ends: {days[0]}")
    assert gate.says()["reason"] == "you may no longer use 'vm1': your window is over"
    assert far.recv(1) == b""


def test_nobody_is_at_the_console_of_a_machine_without_logind(server: Server) -> None:
    use(server, "where: console")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "only at the console of this server" in str(refused["reason"])


def test_address_told_by_a_gate_that_is_no_login_shell_is_not_believed(server: Server) -> None:
    """The server's gates say 192.0.2.7, and any program of the user's could say so."""
    use(server, "from: 192.0.2.0/24")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "the address is not believed" in str(refused["reason"])


def test_vm_from_vms_d_is_in_force_and_followed(server: Server) -> None:
    directory = server.directory / "vms.d"
    directory.mkdir()
    part = directory / "more.yaml"
    text = f"vms: {{vm7: {{socket: {server.directory}/vm7, allow: [{{user: {server.user}}}]}}}}\n"
    part.write_text(text)
    wait_until(lambda: len(server.audit("map")) == 2, "the broker to see the new file")
    server.vm("vm7")
    gate = server.open("vm7")
    part.unlink()
    assert gate.says()["code"] == 77


def test_stray_files_in_vms_d_are_not_the_maps(server: Server) -> None:
    directory = server.directory / "vms.d"
    directory.mkdir()
    (directory / ".more.yaml.swp").write_text("garbage: [")
    (directory / "README").write_text("garbage: [")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) == 2, "the reload")
    assert server.audit("map")[1]["decision"] == "allow"
