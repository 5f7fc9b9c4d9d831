"""If the log cannot be written, running sessions still end properly and no new one begins."""

import resource

from tests.unit.broker.server import DISPLAY, MAIN, Server, wait_until


def fill_log(server: Server) -> None:
    full = server.log_file.stat().st_size
    resource.prlimit(server.broker.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))


def make_room(server: Server) -> None:
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.broker.pid, resource.RLIMIT_FSIZE, no_limit)


def test_session_that_ends_while_the_log_is_full_leaves_no_record_process_or_descriptor(
    server: Server,
) -> None:
    vm = server.vm("vm1")
    assert server.gate("whoami").exit_code() == 0  # opens what stays open after the first look-up
    before = server.descriptors(server.broker)
    gate = server.open("vm1")
    for kind in (MAIN, DISPLAY, DISPLAY, DISPLAY):
        server.channel(vm, kind)
    fill_log(server)
    gate.process.terminate()
    records = server.directory / "sessions"
    wait_until(lambda: not list(records.iterdir()), "its record to be removed", 4)
    wait_until(lambda: not server.relay_processes(), "its process to end", 4)
    wait_until(lambda: server.descriptors(server.broker) <= before, "its descriptors to close", 4)


def test_session_ends_if_its_right_is_taken_away_while_the_log_is_full(server: Server) -> None:
    vm = server.vm("vm1")
    gate = server.open("vm1")
    _, far = server.channel(vm)
    fill_log(server)
    server.write_map("nobody-else", "vm1")
    assert far.recv(1) == b""
    assert gate.exit_code() == 77


def test_open_is_refused_while_the_log_is_full_and_lost_lines_are_reported_later(
    server: Server,
) -> None:
    server.vm("vm1")
    fill_log(server)
    server.gate("list --json").says()  # its log line is lost
    refused = server.gate("open --json vm1").says()
    assert (refused["code"], refused["reason"]) == (70, "the server cannot write its log")
    make_room(server)
    wait_until(lambda: server.gate("list --json").says()["event"] == "vms", "the list")
    assert server.open("vm1")
    losses = [line for line in server.audit("fault") if "were lost" in str(line["reason"])]
    assert len(losses) == 1
