"""A view-only session: its main channel goes through the relay's filter, from first to last."""

import json
import socket
import struct

import pytest

from spicetunnel.spice.link import NEED_SECURED, VERSION_MISMATCH, refusal
from tests.stage.spice import (
    AGENT_DATA,
    CAPABILITIES,
    MOUSE,
    VM_TOKENS,
    announcement,
    exactly,
    link,
    message,
    pass_the_link,
    pieces,
    ticket,
    u32,
)
from tests.unit.broker.server import Server, Vm, running_server, wait_until

VIEW_ONLY = ", view-only: true"
INPUTS = 3
ATTACH = message(104)
CAPABLE = b"".join(pieces(CAPABILITIES, announcement(2)))


def use(server: Server, conditions: str) -> None:
    """Put a map in force in which our grant has these conditions."""
    server.write_map(server.user, "vm1", grant=conditions)
    server.use_map(server.map.read_text())


def linked(server: Server, vm: Vm) -> tuple[socket.socket, socket.socket]:
    """A main channel past its link: the viewer's end and the VM's."""
    viewer = server.connect()
    viewer.sendall(link())
    far = vm.accept()
    server.at_the_end(far.close)
    assert exactly(far, len(link())) == link()
    pass_the_link(viewer, far)
    return viewer, far


def is_filtered(viewer: socket.socket, far: socket.socket) -> bool:
    """Whether the mouse is dropped, and given back; the viewer's next message arrives."""
    mouse = b"".join(pieces(MOUSE, u32(1, 2, 3) + b"\0"))
    viewer.sendall(mouse + ATTACH)
    if exactly(far, len(ATTACH)) != ATTACH:
        return False
    assert exactly(viewer, 10) == message(VM_TOKENS, u32(1))
    return True


def test_main_channel_is_filtered_and_counted(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = linked(server, vm)
    assert is_filtered(viewer, far)
    viewer.sendall(CAPABLE)
    kind, size = struct.unpack("<HI", exactly(far, 6))
    assert (kind, size) == (AGENT_DATA, len(CAPABLE) - 6)
    viewer.close()
    (end,) = wait_until(lambda: server.audit("channel-end"), "the end")
    assert end["reason"] == "closed by the viewer"
    assert end["bytes_up"] == len(ticket()) + 10 + len(ATTACH) + len(CAPABLE)  # what QEMU got


def test_main_channel_of_others_is_moved_unread(server: Server) -> None:
    vm = server.vm("vm1")
    server.open("vm1")
    assert not is_filtered(*linked(server, vm))


def test_unknown_byte_ends_the_channel_and_is_told_and_logged(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    gate = server.open("vm1")
    viewer, far = linked(server, vm)
    viewer.sendall(message(77, b"\x1b[2J"))
    assert viewer.recv(1) == far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("channel-end"), "the end")
    assert end["reason"] == "closed by the filter: a message of type 77 and 4 bytes from the viewer"
    notice = gate.says()
    assert notice["event"] == "notice"
    assert "its filter met unknown bytes" in str(notice["reason"])
    assert is_filtered(*linked(server, vm))  # the session goes on, and another viewer may come


def test_byte_from_the_vm_too(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = linked(server, vm)
    far.sendall(message(8, b"a list may hold anything"))
    assert viewer.recv(1) == far.recv(1) == b""
    (end,) = wait_until(lambda: server.audit("channel-end"), "the end")
    assert end["reason"] == "closed by the filter: a message of type 8 from the VM"


@pytest.mark.parametrize("capabilities", [0b0011, 0b1010, 0])
def test_viewer_with_long_headers_is_refused(server: Server, capabilities: int) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    viewer = server.connect()
    viewer.sendall(link(capabilities=capabilities))
    answer = refusal(VERSION_MISMATCH)
    assert exactly(viewer, len(answer)) == answer
    assert server.audit("channel")[-1]["reason"] == "the viewer speaks SPICE with long headers"
    use(server, "")
    other = server.connect()
    other.sendall(link(capabilities=capabilities))
    with vm.accept() as far:
        assert exactly(far, 30) == link(capabilities=capabilities)[:30]


@pytest.mark.parametrize("keep", [True, False])
def test_session_that_becomes_view_only_gets_a_filtered_main_channel(
    server: Server, keep: bool
) -> None:
    use(server, "")
    vm = server.vm("vm1")
    gate = server.open("vm1", *(["--keep"] if keep else []))
    viewer, far = linked(server, vm)
    _, inputs = server.channel(vm, INPUTS)
    use(server, VIEW_ONLY)
    assert far.recv(1) == inputs.recv(1) == b""
    notice = gate.says()
    assert (notice["event"], notice["reason"]) == ("notice", "your rights at 'vm1' have changed")
    assert notice["hint"] == ("" if keep else "connect your viewer again")
    if keep:  # before the viewer can see it
        assert gate.says()["event"] == "waiting"
        assert gate.says()["event"] == "ready"
    assert viewer.recv(1) == b""
    wait_until(lambda: len(server.audit("channel-end")) == 2, "both ends")
    reasons = {str(end["type"]): end["reason"] for end in server.audit("channel-end")}
    assert reasons == {
        "main": "it carries more than is granted now",
        "inputs": "no longer granted",
    }
    assert is_filtered(*linked(server, vm))
    assert server.audit("session-end") == server.audit("vm") == []


def test_session_that_is_no_longer_view_only_keeps_its_channel(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = linked(server, vm)
    use(server, "")
    assert is_filtered(viewer, far)
    viewer.close()
    wait_until(lambda: server.audit("channel-end"), "the end")
    assert not is_filtered(*linked(server, vm))


def test_next_broker_knows_that_a_channel_is_filtered(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    viewer, far = linked(server, vm)
    server.kill_broker()
    assert is_filtered(viewer, far)
    server.start()
    wait_until(lambda: server.audit("resume"), "the session to be resumed")
    use(server, f"{VIEW_ONLY}, take-over: true")  # decides it anew
    assert is_filtered(viewer, far)
    assert server.audit("channel-end") == []


def test_next_broker_cuts_a_channel_that_is_not_filtered(server: Server) -> None:
    use(server, "")
    vm = server.vm("vm1")
    server.open("vm1")
    _, far = linked(server, vm)
    server.kill_broker()
    server.write_map(server.user, "vm1", grant=VIEW_ONLY)
    server.start()
    assert far.recv(1) == b""
    wait_until(lambda: server.audit("channel-end"), "the end")
    assert is_filtered(*linked(server, vm))


@pytest.mark.parametrize("recorded", [None, ["clipboard-from-vm", "mouse"], []])
def test_next_broker_believes_record_and_relay_only_if_they_agree(
    server: Server, recorded: list[str] | None
) -> None:
    """A record without the word is one of a broker that knew no filter."""
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    _, far = linked(server, vm)
    server.kill_broker()
    (path,) = (server.directory / "sessions").iterdir()
    record = json.loads(path.read_text())
    record["channels"][0]["filter"] = recorded
    if recorded is None:
        del record["channels"][0]["filter"]
    path.write_text(json.dumps(record))
    server.start()
    assert far.recv(1) == b""


#: A relay from before the filter: it says nothing of filters, and ignores the word.
OLD_RELAY = """
from spicetunnel.relay import channels, session
from spicetunnel.common import protocol
encode = protocol.encode
def without(message):
    return encode({key: value for key, value in message.items() if key != "filters"})
session.encode = without
session.channel_of = lambda message, viewer, vm: channels.Channel(message["channel"], viewer, vm)
"""


def test_relay_of_an_earlier_version_gets_no_view_only_channel() -> None:
    with running_server(relay_patch=OLD_RELAY) as server:
        use(server, VIEW_ONLY)
        server.vm("vm1")
        server.open("vm1")
        viewer = server.connect()
        viewer.sendall(link())
        assert len(exactly(viewer, 1000)) > 0
        assert "cannot filter" in str(server.audit("channel")[-1]["reason"])


def test_side_channels_of_a_view_only_session_are_moved_unread(server: Server) -> None:
    use(server, VIEW_ONLY)
    vm = server.vm("vm1")
    server.open("vm1")
    linked(server, vm)
    viewer, far = server.channel(vm, 2)
    viewer.sendall(b"any bytes")
    assert far.recv(100) == b"any bytes"
    refused = server.connect()
    refused.sendall(link(INPUTS, 7))
    assert exactly(refused, 200) == refusal(NEED_SECURED)
