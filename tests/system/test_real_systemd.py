"""Broker and relay as systemd runs them: the shipped units on a real host, and a live session of a
person with plain ssh."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.stage.echovm import VM_DIRECTORY
from tests.stage.kvmhost import BROKER, MAP_FILE, PERSON, RELAY, SOCKETS, KvmHost
from tests.stage.waiting import StageError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.stage import Stage

SERVICES = (BROKER, RELAY)

#: What an admin, an upgrade or a fault does to the services, and live sessions do not feel.
DISTURBANCES = {
    "the broker is restarted": ("restart", "spicetunneld"),
    "the broker is killed": ("kill", "--signal=KILL", "spicetunneld"),
    "the relay is restarted": ("restart", "spicetunnel-relay"),
    "the relay is killed": ("kill", "--signal=KILL", "--kill-whom=main", "spicetunnel-relay"),
    "both are restarted": ("restart", "spicetunneld", "spicetunnel-relay"),
    "systemd executes itself anew": ("daemon-reexec",),
    "systemd reads its units anew": ("daemon-reload",),
    "the map is read anew": ("reload", "spicetunneld"),
}


@pytest.fixture(scope="module")
def machine(stage: Stage) -> Iterator[KvmHost]:
    with KvmHost(stage.programs.parent) as host:
        yield host


@pytest.fixture
def host(machine: KvmHost) -> Iterator[KvmHost]:
    """With both services running, and no session, whatever the test before did."""
    machine.run("systemctl", "reset-failed")  # also counts its sockets' starts from nought
    machine.run("systemctl", "enable", "--now", "spicetunneld")
    yield machine
    print(machine.journal(*SERVICES, *SOCKETS)[-5000:])  # for who reads why the test failed
    wait_until(lambda: not machine.session_pids(), 5, "the sessions' processes to end")


def runs(host: KvmHost) -> bool:
    """Whether both services serve, and systemd minds nothing."""
    try:
        host.run("systemctl", "is-active", *SERVICES, *SOCKETS)
    except StageError:  # one is not
        return False
    return host.failed() == ""


def test_services_start_when_their_sockets_are_asked(machine: KvmHost) -> None:
    machine.run("systemctl", "start", *SOCKETS)
    assert [machine.main_pid(unit) for unit in SERVICES] == [0, 0]
    with machine.session() as session:
        assert all(machine.main_pid(unit) for unit in SERVICES)
        session.finish()
    machine.run("systemctl", "stop", *SERVICES, *SOCKETS)


def test_one_line_enables_and_starts_both(machine: KvmHost) -> None:
    machine.run("systemctl", "enable", "--now", "spicetunneld")
    enabled = machine.run("systemctl", "is-enabled", *SERVICES, *SOCKETS).split()
    assert enabled == ["enabled"] * 4
    assert runs(machine)
    machine.run("spicetunnel", "status")


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/etc/spicetunnel", "drwxr-xr-x root:root"),
        (MAP_FILE, "-rw-r----- root:spicetunnel"),
        ("/run/spicetunnel", "drwxr-xr-x spicetunnel:spicetunnel"),
        ("/run/spicetunnel/control.sock", "srw-rw-rw- spicetunnel:spicetunnel"),
        ("/run/spicetunnel/tunnel.sock", "srw-rw-rw- spicetunnel:spicetunnel"),
        ("/run/spicetunnel-relay", "drwxr-s--- spicetunnel-relay:spicetunnel"),
        ("/run/spicetunnel-relay/relay.sock", "srw-rw---- spicetunnel-relay:spicetunnel"),
        ("/run/spicetunnel-relay/sessions", "drwxrws--- spicetunnel-relay:spicetunnel"),
        ("/var/lib/spicetunnel/broker", "drwx------ spicetunnel:spicetunnel"),
        (VM_DIRECTORY, "drwx--s--- libvirt-qemu:spicetunnel"),
        (f"{VM_DIRECTORY}/vm1.sock", "srwxrwxr-x libvirt-qemu:spicetunnel"),
    ],
)
def test_path_belongs_to_whom_it_should(host: KvmHost, path: str, owner: str) -> None:
    assert host.run("stat", "--format=%A %U:%G", path).strip() == owner


def test_broker_reaches_the_vms_sockets_and_does_not_list_or_make_any(host: KvmHost) -> None:
    with host.session() as session:
        session.finish()
    become = ("setpriv", "--reuid=spicetunnel", "--regid=spicetunnel", "--clear-groups")
    for command in (("ls", VM_DIRECTORY), ("touch", f"{VM_DIRECTORY}/vm9.sock")):
        with pytest.raises(StageError, match="Permission denied"):
            host.run(*become, *command)


def test_check_looks_with_the_rights_of_the_broker(host: KvmHost) -> None:
    assert host.run("spicetunnel", "check", "--strict").strip() == (
        f"{MAP_FILE}: ok, 2 vms, 2 grants"
    )
    host.run("chmod", "600", MAP_FILE)
    try:
        with pytest.raises(StageError, match="cannot be read by spicetunnel: permission denied"):
            host.run("spicetunnel", "check")
    finally:
        host.run("chmod", "640", MAP_FILE)


def test_member_of_the_admin_group_gets_map_and_grants_from_the_broker(host: KvmHost) -> None:
    host.run("useradd", "--groups=spicetunnel-admin", "gary")
    gary = ("runuser", "-u", "gary", "--")
    with pytest.raises(StageError, match="Permission denied"):
        host.run(*gary, "cat", MAP_FILE)
    assert "yes: charlie may use 'vm1'" in host.run(*gary, "spicetunnel", "explain", PERSON, "vm1")
    assert "vm2\n  charlie" in host.run(*gary, "spicetunnel", "calendar")
    host.run("spicetunnel", "grant", "gary", "vm2", "--for", "5m")
    assert "temporary grant" in host.run(*gary, "spicetunnel", "explain", "gary", "vm2")
    host.run("spicetunnel", "revoke", "gary", "vm2")
    with pytest.raises(StageError, match="run this as root, or as a member of the admin group"):
        host.run("runuser", "-u", PERSON, "--", "spicetunnel", "explain", PERSON, "vm1")


@pytest.mark.parametrize(("unit", "user"), [(BROKER, "spicetunnel"), (RELAY, "spicetunnel-relay")])
def test_hardening_is_in_force(host: KvmHost, unit: str, user: str) -> None:
    pid = host.main_pid(unit)
    assert host.run("ps", "-o", "user:20=", "-p", str(pid)).strip() == user
    status = status_of(host, pid)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {int(status[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapAmb")} == {0}
    with pytest.raises(StageError, match="Read-only file system"):
        inside(host, pid, "touch", "/usr/canary")
    with pytest.raises(StageError, match="cannot open directory '/home': Permission denied"):
        inside(host, pid, "ls", "/home")


def test_relay_has_a_network_of_its_own_and_sees_nothing_of_the_broker(host: KvmHost) -> None:
    broker, relay = host.main_pid(BROKER), host.main_pid(RELAY)
    networks = [host.run("readlink", f"/proc/{pid}/ns/net") for pid in (1, broker, relay)]
    assert networks[0] == networks[1] != networks[2]
    for path in ("/etc/spicetunnel", "/run/spicetunnel", "/var/lib/spicetunnel"):
        with pytest.raises(StageError, match="Permission denied"):
            inside(host, relay, "ls", path)


def test_process_of_a_session_is_shut_in_further(host: KvmHost) -> None:
    with host.session() as session:
        (pid,) = host.session_pids()
        assert (
            status_of(host, pid)["Seccomp_filters"]
            > status_of(host, host.main_pid(RELAY))["Seccomp_filters"]
        )
        assert limits_of(host, pid)["Max core file size"] == "0"
        session.finish()


def status_of(host: KvmHost, pid: int) -> dict[str, str]:
    lines = host.path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def limits_of(host: KvmHost, pid: int) -> dict[str, str]:
    """The hard ones."""
    lines = host.path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {fields[0]: fields[2] for fields in (re.split(r"\s{2,}", line) for line in lines)}


def inside(host: KvmHost, pid: int, *argv: str) -> str:
    """Run a command with the files that the service `pid` sees, and as its user."""
    enter = ("nsenter", f"--target={pid}", "--mount", "--")
    uid, gid = (status_of(host, pid)[name].split()[0] for name in ("Uid", "Gid"))
    return host.run(*enter, "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *argv)


@pytest.mark.parametrize("verb", DISTURBANCES.values(), ids=DISTURBANCES.keys())
def test_session_lives_on_when(host: KvmHost, verb: tuple[str, ...]) -> None:
    with host.session() as session:
        pids = host.session_pids()
        host.run("systemctl", *verb)
        session.goes_on()
        wait_until(lambda: runs(host), 10, lambda: f"both services to serve: {host.failed()}")
        assert host.session_pids() == pids
        wait_until(lambda: [row["vm"] for row in host.sessions()] == ["vm1"], 5, "it to be known")
        session.goes_on()
        with host.session("vm2") as another:
            another.finish()
        session.finish()
        ended = host.run("spicetunnel", "kick", "--vm", "vm1", "--reason", "enough")
        assert ended.startswith("ended: ")
        assert session.ssh.wait() == 77
        assert "enough" in session.ssh.err()
    wait_until(lambda: not host.sessions(), 5, "its end")


def test_session_is_cut_after_both_were_killed_at_once(host: KvmHost) -> None:
    with host.session() as session:
        host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", *SERVICES)
        session.goes_on()
        wait_until(lambda: runs(host), 10, "both services to serve")
        wait_until(host.sessions, 5, "the session to be known")
        host.run("spicetunnel", "kick", "--vm", "vm1")
        session.is_cut()
        assert session.ssh.wait() == 77


def test_relay_that_is_stopped_ends_every_session_and_says_so(host: KvmHost) -> None:
    with host.session("vm1") as first, host.session("vm2") as second:
        host.run("systemctl", "stop", "spicetunnel-relay.socket", "spicetunnel-relay")
        for session in (first, second):
            session.is_cut()
            assert session.ssh.wait() == 70
            assert "the server's relay was stopped" in session.ssh.err()
    assert host.session_pids() == set()
    assert host.show(RELAY, "Result") == "success"
    assert '"sessions_ended": 2' in host.journal(RELAY)
    assert host.journal(BROKER).count("the server's relay was stopped") >= 2


def test_relay_that_is_stopped_ends_a_process_that_no_longer_listens(host: KvmHost) -> None:
    """As a session's process may be that its viewer took over. The test's is one of the unit."""
    unit = host.show(RELAY, "ControlGroup")
    join = f"echo $$ > /sys/fs/cgroup{unit}/cgroup.procs"
    become = "exec setpriv --reuid=spicetunnel-relay --clear-groups sleep 1000"
    with host.process("hostile", "sh", "-c", f"{join} && {become}"):
        (pid,) = wait_until(host.session_pids, 5, "the process to have joined the unit")
        host.run("systemctl", "stop", "spicetunnel-relay.socket", "spicetunnel-relay")
        with pytest.raises(StageError):
            host.run("kill", "-0", str(pid))
    assert '"sessions_ended": 1' in host.journal(RELAY)


def test_stop_and_start_of_the_broker_alone_ends_no_session(host: KvmHost) -> None:
    with host.session() as session:
        host.run("systemctl", "stop", *SOCKETS[:1], "spicetunneld")
        session.goes_on()
        host.run("systemctl", "start", "spicetunneld")
        wait_until(host.sessions, 5, "the session to be known")
        session.finish()


def test_broker_that_cannot_start_is_tried_until_it_can(host: KvmHost) -> None:
    """As while its program is replaced. By default systemd gives up after five tries, for good."""
    assert {host.show(unit, "StartLimitIntervalUSec") for unit in SERVICES} == {"0"}
    with host.session() as session:
        host.run("mv", "/usr/bin/spicetunneld", "/usr/bin/spicetunneld.away")
        with pytest.raises(StageError):
            host.run("systemctl", "restart", "spicetunneld")
        wait_until(lambda: int(host.show(BROKER, "NRestarts")) > 1, 10, "another try")
        session.goes_on()
        host.run("mv", "/usr/bin/spicetunneld.away", "/usr/bin/spicetunneld")
        wait_until(lambda: runs(host), 10, "both services to serve")
        wait_until(host.sessions, 5, "the session to be known")
        session.finish()


def test_status_says_why_the_broker_does_not_start(host: KvmHost) -> None:
    text = host.path("/etc/spicetunnel/vms.yaml").read_text()
    host.run("systemctl", "stop", SOCKETS[0], "spicetunneld")
    host.run("rm", "/etc/spicetunnel/vms.yaml")
    try:
        with pytest.raises(StageError):
            host.run("systemctl", "start", "spicetunneld")
        said = host.run("sh", "-c", "spicetunnel status 2>&1 || true")
        assert "trouble: the server's broker" in said
        assert "  service   activating" in said  # systemd tries it again and again
        assert "/etc/spicetunnel/vms.yaml: cannot be read: no such file" in said
        assert "hint: create the file" in said
    finally:
        host.write("/etc/spicetunnel/vms.yaml", text)


def test_kill_of_one_sessions_process_ends_it_alone(host: KvmHost) -> None:
    """As the kernel's OOM killer does it."""
    assert host.show(RELAY, "OOMPolicy") == "continue"
    with host.session("vm1") as first:
        (pid,) = host.session_pids()
        with host.session("vm2") as second:
            host.run("kill", "-KILL", str(pid))
            first.is_cut()
            assert first.ssh.wait() == 70
            assert "the server's relay has lost the session" in first.ssh.err()
            second.goes_on()
            assert runs(host)
            second.finish()
    assert host.show(RELAY, "NRestarts") == "0"


def test_reboot_comes_up_working(host: KvmHost) -> None:
    host.reboot()
    assert runs(host)
    with host.session() as session:
        session.finish()


EXTRA = "/var/lib/extrausers"


@pytest.fixture
def directory(host: KvmHost) -> Iterator[str]:
    """Where the accounts are that stand in no file of /etc: charlie's, meanwhile, is one of them.

    The broker's patience with it is short.
    """
    host.run(
        "sed", "-i", r"s/^\(passwd\|group\|shadow\):.*files/& extrausers/", "/etc/nsswitch.conf"
    )
    host.run("install", "--directory", EXTRA)
    for file in ("passwd", "shadow"):
        host.run("sh", "-c", f"grep ^{PERSON}: /etc/{file} > {EXTRA}/{file}")
        host.run("sed", "-i", f"/^{PERSON}:/d", f"/etc/{file}")
    drop_in = "/etc/systemd/system/spicetunneld.service.d"
    host.run("install", "--directory", drop_in)
    start = "/usr/bin/spicetunneld --accounts-away 25"
    host.write(f"{drop_in}/test.conf", f"[Service]\nExecStart=\nExecStart={start}\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "spicetunneld")
    yield EXTRA
    for file in ("passwd", "shadow"):
        host.run("sh", "-c", f"cat {EXTRA}/{file} >> /etc/{file}")
    host.run("rm", "-r", EXTRA, drop_in)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "spicetunneld")


def test_session_goes_on_while_the_account_directory_is_away(host: KvmHost, directory: str) -> None:
    """As while SSSD restarts: NSS says the same then as of an account that does not exist."""
    with host.session() as session:
        host.run("mv", directory, f"{directory}-away")
        time.sleep(12)  # the broker has looked at least once
        session.goes_on()
        host.run("mv", f"{directory}-away", directory)
        time.sleep(12)
        session.goes_on()
        with host.session("vm2") as another:
            another.finish()
        host.run("mv", directory, f"{directory}-away")
        session.is_cut(45)  # after 25 s, at the next look
        host.run("mv", f"{directory}-away", directory)
        assert session.ssh.wait() == 75
        assert "the server could not look up who you are" in session.ssh.err()


def test_flood_of_refusals_drops_no_line_of_others(host: KvmHost) -> None:
    """journald's own limit would: "Suppressed 19326 messages", and nobody sees who came then."""
    assert {host.show(unit, "LogRateLimitIntervalUSec") for unit in SERVICES} == {"0"}
    host.run("useradd", "--create-home", "mallory")
    before = len(host.journal(BROKER).splitlines())
    code = (
        "import socket, time\nend = time.monotonic() + 4\nwhile time.monotonic() < end:\n"
        "    try: socket.socket(socket.AF_UNIX).connect('/run/spicetunnel/tunnel.sock')\n"
        "    except OSError: pass\n"
    )
    with (
        host.process("flood", "python3", "-c", code, user="mallory") as flood,
        host.session() as session,
    ):
        assert flood.alive()
        session.finish()
        assert flood.wait() == 0
    new = host.journal(BROKER).splitlines()[before:]
    assert [line for line in new if '"event": "open"' in line and f'"user": "{PERSON}"' in line]
    assert "Suppressed" not in host.run("journalctl", "--boot", "--no-pager")
    assert len(new) < 100
    assert [line for line in new if "it floods tunnel.sock: shut out" in line]
    listed = host.run("getfacl", "--absolute-names", "/run/spicetunnel/tunnel.sock")
    assert "user:mallory:---" in listed


def test_zone_of_the_server_changes_under_a_running_session(host: KvmHost) -> None:
    now = int(host.run("date", "+%H"))
    window = f"{now:02}:00-{(now + 2) % 24:02}:00"
    before = host.path("/etc/spicetunnel/vms.yaml").read_text()
    grant = f"{{user: {PERSON}, when: '{window}'}}"
    host.write("/etc/spicetunnel/vms.yaml", before.replace(f"{{user: {PERSON}}}", grant))
    wait_until(lambda: '"event": "map"' in host.journal(BROKER).splitlines()[-1], 5, "the map")
    try:
        with host.session() as session:
            host.run("ln", "-sf", "/usr/share/zoneinfo/Asia/Tokyo", "/etc/localtime")
            session.is_cut()
            assert session.ssh.wait() == 77
        with pytest.raises(StageError, match="may not use 'vm1'"):  # of one mind with the broker
            host.run("spicetunnel", "explain", PERSON, "vm1")
    finally:
        host.run("ln", "-sf", "/usr/share/zoneinfo/Etc/UTC", "/etc/localtime")
        host.write("/etc/spicetunnel/vms.yaml", before)
