"""The relay's parent: who may talk to it, and what its death and its stop do."""

import contextlib
import getpass
import os
import pwd
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from tests.unit.broker.server import wait_until
from tests.unit.relay.conftest import Relay, Speaker, alive


def test_nobody_but_the_broker_may_talk_to_it(relay: Relay) -> None:
    """By the kernel's word: here it is told that the broker is another user than we are."""
    relay.stop()
    ours = getpass.getuser()
    other = next(each.pw_name for each in pwd.getpwall() if each.pw_name != ours)
    log = (relay.directory / "other.log").open("ab")
    process = subprocess.Popen(relay.argv(other), stderr=log)
    try:
        wait_until((relay.directory / "relay.sock").exists, "the relay")
        wait_until(lambda: b'"start"' in Path(log.name).read_bytes(), "the relay to listen")
        speaker = Speaker(relay.directory / "relay.sock")
        with contextlib.suppress(BrokenPipeError):  # it may be closed before we have spoken
            speaker.say({"v": 1, "op": "begin", "session": "0badbeef", "grace": 60})
        assert speaker.hear_all() == []
        speaker.close()
        assert b"not the broker" in Path(log.name).read_bytes()
        assert not list((relay.directory / "sessions").iterdir())
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def test_sockets_are_of_the_broker_s_group_and_nobody_else_s(relay: Relay) -> None:
    relay.begin()
    for path in (relay.directory / "relay.sock", relay.directory / "sessions" / "0badbeef"):
        assert path.stat().st_mode & 0o777 == 0o770
    assert (relay.directory / "sessions").stat().st_mode & 0o777 == 0o770


def test_killed_parent_takes_no_session_along(relay: Relay) -> None:
    broker = relay.begin()
    viewer, vm = relay.channel(broker)
    relay.process.kill()
    relay.process.wait()
    viewer.sendall(b"x")
    assert vm.recv(1) == b"x"
    relay.start()
    relay.begin("0badf00d")
    broker.say({"op": "end"})
    assert viewer.recv(1) == b""


def test_restarted_parent_takes_no_session_along(relay: Relay) -> None:
    """SIGHUP, the unit's RestartKillSignal."""
    broker = relay.begin()
    viewer, vm = relay.channel(broker)
    relay.process.send_signal(signal.SIGHUP)
    assert relay.process.wait(10) == 0
    assert relay.log("stop")[-1]["sessions_ended"] == 0
    relay.start()
    viewer.sendall(b"x")
    assert vm.recv(1) == b"x"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_parent_ends_every_session_also_of_one_before(
    relay: Relay, how: signal.Signals
) -> None:
    old = relay.begin("0badbeef")
    _, old_vm = relay.channel(old)
    relay.process.kill()
    relay.process.wait()
    relay.start()
    new = relay.begin("0badf00d")
    _, new_vm = relay.channel(new)
    relay.process.send_signal(how)
    assert relay.process.wait(10) == 0
    for broker, vm in ((old, old_vm), (new, new_vm)):
        events = [each["event"] for each in broker.hear_all()]
        assert [each for each in events if each != "usage"] == ["stopping", "closed"]
        assert vm.recv(1) == b""
    assert relay.log("stop")[-1]["sessions_ended"] == 2


def test_session_that_does_not_hear_its_stop_is_killed(relay: Relay) -> None:
    broker = relay.begin()
    _, vm = relay.channel(broker)
    pid = relay.pid()
    os.kill(pid, signal.SIGSTOP)
    relay.process.terminate()
    assert relay.process.wait(15) == 0
    assert not alive(pid)
    assert vm.recv(1) == b""


def test_second_relay_in_the_same_directory_does_not_start(relay: Relay) -> None:
    second = subprocess.run(relay.argv(), capture_output=True, text=True, timeout=10, check=False)
    assert second.returncode == 70
    assert "another process serves" in second.stderr
    relay.begin()


def test_directory_that_others_may_write_is_refused(relay: Relay) -> None:
    relay.stop()
    relay.directory.chmod(0o770)
    started = subprocess.run(relay.argv(), capture_output=True, text=True, timeout=10, check=False)
    assert started.returncode == 70
    assert "writable by no one else" in started.stderr
    assert f"hint: chmod go-w {relay.directory}" in started.stderr


def test_unknown_broker_is_told(relay: Relay) -> None:
    relay.stop()
    argv = relay.argv("no-such-user")
    started = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert started.returncode == 70
    assert "there is no user 'no-such-user'" in started.stderr


def test_sessions_share_the_parents_memory(relay: Relay) -> None:
    """A fork, and no interpreter started anew: most of what it has is not its own."""
    broker = relay.begin()
    relay.channel(broker)
    pid = relay.pid()
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    own = sizes["Private_Dirty"] + sizes["Private_Clean"]
    assert own < sizes["Rss"] / 2


def test_session_s_process_is_shut_in(relay: Relay) -> None:
    """By the kernel's word; what that takes away is in test_isolation.py."""
    broker = relay.begin()
    relay.channel(broker)
    status = Path(f"/proc/{relay.pid()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (fields["Seccomp"], fields["NoNewPrivs"], fields["Threads"]) == ("2", "1", "1")
    assert fields["Name"] == "relay:0badbeef"  # for ps and top
    folder = Path(f"/proc/{relay.pid()}/fd")
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):  # not dumpable: its own user may not look, either
            list(folder.iterdir())
        return

    def held() -> list[str]:
        return sorted(
            os.readlink(each).split(":")[0] for each in folder.iterdir() if each.name > "2"
        )

    # The epoll, the broker, the listener, and the two ends of the channel.
    wait_until(lambda: held() == ["anon_inode", *["socket"] * 4], "it to hold these and no others")


def test_stop_ends_a_session_that_is_being_begun(relay: Relay) -> None:
    """Its process has been forked, and does not listen yet: the parent cannot find it."""
    broker = relay.ask()
    relay.begin()  # so the first one has its process
    relay.process.terminate()
    assert relay.process.wait(15) == 0
    broker.say({"v": 1, "op": "begin", "session": "0badf00d", "grace": 60})
    assert broker.hear_all() == []


def test_killed_parent_leaves_the_directory_to_the_next(relay: Relay) -> None:
    """Also where one of its children still waits for the broker's word."""
    relay.ask()
    relay.begin()
    relay.process.kill()
    relay.process.wait()
    relay.start()
    relay.begin("0badf00d")


def test_parent_without_descriptors_accepts_when_it_has_some_again(relay: Relay) -> None:
    # The limit is on numbers: the next free one is the lowest that is not in use.
    used = {int(fd) for fd in os.listdir(f"/proc/{relay.process.pid}/fd")}
    held = next(number for number in range(100) if number not in used)
    limits = resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (held, limits[1]))
    broker = relay.ask()
    wait_until(lambda: relay.log("fault"), "the parent to say so")
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, limits)
    broker.say({"v": 1, "op": "begin", "session": "0badf00d", "grace": 60})
    assert broker.hear()["event"] == "begun"
