"""Conditions of a grant in a running broker: dates, console, address, and channels."""

import os
import signal
from datetime import datetime, timedelta

import pytest

from spicetunnel.spice.link import NEED_SECURED, refusal
from tests.stage.spice import link
from tests.unit.broker.server import DISPLAY, Server, wait_until

INPUTS, USBREDIR, PORT, UNKNOWN_TYPE = 3, 9, 10, 77


def use(server: Server, conditions: str) -> None:
    """Put a map in force in which our grant has these conditions."""
    before = len(server.audit("map"))
    server.write_map(server.user, "vm1", grant=f", {conditions}" if conditions else "")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) > before, "the reload")
    assert server.audit("map")[-1]["decision"] == "allow", server.audit("map")[-1]


def answer_to_link(server: Server, kind: int) -> bytes:
    """All bytes that a viewer gets for a link of this channel type."""
    viewer = server.connect()
    viewer.sendall(link(kind, 7))
    data = b""
    while part := viewer.recv(1000):
        data += part
    return data


@pytest.fixture
def days() -> tuple[str, str]:
    """A day in the past and one in the future, as the map's dates.

    Not yesterday and tomorrow: a test may run over midnight.
    """
    today = datetime.now().astimezone().date()
    return str(today - timedelta(days=2)), str(today + timedelta(days=2))


def test_view_only_denies_input_and_devices_and_allows_the_screen(server: Server) -> None:
    use(server, "view-only: true")
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    server.channel(vm, DISPLAY)
    for kind in (INPUTS, USBREDIR, PORT, UNKNOWN_TYPE):
        assert answer_to_link(server, kind) == refusal(NEED_SECURED)
    denied = server.denied("channel")
    assert [line["reason"] for line in denied] == [
        "inputs is not granted",
        "usbredir is not granted",
        "port is not granted",
        "type-77 is not granted",
    ]
    opened = server.audit("open")[0]
    assert opened["channels"] == ["cursor", "display", "main", "playback"]
    assert opened["agent"] == ["clipboard-from-vm"]


def test_full_grant_allows_every_channel_even_of_an_unknown_type(server: Server) -> None:
    use(server, "")
    vm = server.vm("vm1")
    server.open("vm1")
    server.channel(vm)
    for kind in (INPUTS, USBREDIR, UNKNOWN_TYPE):
        server.channel(vm, kind)


def test_channel_right_taken_from_a_running_session_cuts_only_that_channel(server: Server) -> None:
    use(server, "")
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    _, inputs = server.channel(vm, INPUTS)
    _, unknown = server.channel(vm, UNKNOWN_TYPE)
    use(server, "no-devices: true, channels: {deny: inputs}")
    assert inputs.recv(1) == b""
    assert unknown.recv(1) == b""
    viewer.sendall(b"still here")
    assert far.recv(100) == b"still here"
    assert answer_to_link(server, INPUTS) == refusal(NEED_SECURED)
    ends = wait_until(lambda: server.audit("channel-end"), "the ends")
    assert {end["reason"] for end in ends} == {"no longer granted"}


def test_no_devices_allows_inputs_and_no_way_past_them(server: Server) -> None:
    use(server, "no-devices: true")
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = server.channel(vm)
    server.channel(vm, INPUTS)
    for kind in (USBREDIR, PORT, UNKNOWN_TYPE):
        assert answer_to_link(server, kind) == refusal(NEED_SECURED)
    viewer.sendall(b"no filter")  # its main channel is moved unread
    assert far.recv(100) == b"no filter"


def test_open_before_the_first_day_is_refused_with_the_next_window(
    server: Server, days: tuple[str, str]
) -> None:
    use(server, f"starts: {days[1]}")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert refused["reason"] == "you may not use 'vm1' now"
    assert f"your next window opens {days[1]} at 00:00" in str(refused["hint"]).replace(
        f"{datetime.fromisoformat(days[1]):%a} ", ""
    )


def test_list_says_when_a_closed_vm_opens(server: Server, days: tuple[str, str]) -> None:
    use(server, f"starts: {days[1]}")
    server.vm("vm1")
    rows = server.gate("list --json").says()["vms"]
    assert isinstance(rows, list)
    assert rows[0]["state"] == "closed"
    assert rows[0]["next"].startswith(f"{days[1]}T00:00:00")
    table, _ = server.gate("list").process.communicate(timeout=10)
    assert f"opens {days[1]} 00:00" in table


def test_ready_says_until_when(server: Server, days: tuple[str, str]) -> None:
    use(server, f"ends: {days[1]}")
    server.vm("vm1")
    ready = server.gate("open --json vm1").says()
    day_after = str(datetime.fromisoformat(days[1]).date() + timedelta(days=1))
    assert str(ready["until"]).startswith(f"{day_after}T00:00:00")


def test_running_session_ends_if_its_last_day_is_over(
    server: Server, days: tuple[str, str]
) -> None:
    use(server, "")
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    use(server, f"ends: {days[0]}")
    assert gate.says()["reason"] == "you may no longer use 'vm1': your window is over"
    assert far.recv(1) == b""


#: The broker looks for logind's files where there are none, and not in those of the test machine.
NO_LOGIND = """
from pathlib import Path
from spicetunnel.broker.console import Console
Console.__init__.__defaults__ = (Path("/nowhere"), 0)
"""


def test_console_grant_is_refused_on_a_host_without_logind(server: Server) -> None:
    server.restart_patched(NO_LOGIND)
    use(server, "where: console")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "only at the console of this server" in str(refused["reason"])


def test_address_from_a_gate_that_is_not_the_login_shell_is_not_trusted(server: Server) -> None:
    """The gates of these tests report 192.0.2.7, as any program of the user could."""
    use(server, "from: 192.0.2.0/24")
    server.vm("vm1")
    refused = server.gate("open --json vm1").says()
    assert refused["code"] == 77
    assert "the address is not believed" in str(refused["reason"])


def test_vm_from_vms_d_can_be_opened_until_its_file_is_removed(server: Server) -> None:
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


def test_other_files_in_vms_d_are_ignored(server: Server) -> None:
    directory = server.directory / "vms.d"
    directory.mkdir()
    (directory / ".more.yaml.swp").write_text("garbage: [")
    (directory / "README").write_text("garbage: [")
    os.kill(server.broker.pid, signal.SIGHUP)
    wait_until(lambda: len(server.audit("map")) == 2, "the reload")
    assert server.audit("map")[1]["decision"] == "allow"
