"""Where the log cannot be written: what runs ends in order, and nothing new begins."""

import resource

from tests.unit.broker.house import DISPLAY, MAIN, House, wait_until


def fill_log(house: House) -> None:
    full = house.log_file.stat().st_size
    resource.prlimit(house.broker.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))


def make_room(house: House) -> None:
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(house.broker.pid, resource.RLIMIT_FSIZE, no_limit)


def test_session_that_ends_while_the_log_is_full_leaves_nothing(house: House) -> None:
    vm = house.vm("vm1")
    assert house.gate("whoami").exit_code() == 0  # what a look-up opens once is open
    before = house.descriptors(house.broker)
    gate = house.open("vm1")
    for kind in (MAIN, DISPLAY, DISPLAY, DISPLAY):
        house.channel(vm, kind)
    fill_log(house)
    gate.process.terminate()
    records = house.directory / "sessions"
    wait_until(lambda: not list(records.iterdir()), "its record to go", 4)
    wait_until(lambda: not house.relay_processes(), "its process to go", 4)
    wait_until(lambda: house.descriptors(house.broker) <= before, "its descriptors to close", 4)


def test_right_that_ends_while_the_log_is_full_is_cut(house: House) -> None:
    vm = house.vm("vm1")
    gate = house.open("vm1")
    _, far = house.channel(vm)
    fill_log(house)
    house.write_map("nobody-else", "vm1")
    assert far.recv(1) == b""
    assert gate.exit_code() == 77


def test_nothing_begins_while_the_log_is_full_and_the_loss_is_told_after_it(house: House) -> None:
    house.vm("vm1")
    fill_log(house)
    house.gate("list --json").says()  # a line that is lost
    refused = house.gate("open --json vm1").says()
    assert (refused["code"], refused["reason"]) == (70, "the server cannot write its log")
    make_room(house)
    wait_until(lambda: house.gate("list --json").says()["event"] == "vms", "the list")
    assert house.open("vm1")
    losses = [line for line in house.audit("fault") if "were lost" in str(line["reason"])]
    assert len(losses) == 1
