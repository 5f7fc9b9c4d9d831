"""After a restart of the VM or a network failure, the session continues, or ends with a reason."""

import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from spice_connect.reconnect import Outage

from tests.unit.client.fakes import HOLD, READY, Stage, children, eventually, is_alive

#: Makes the tests faster.
QUICK = "reconnect.PAUSES = (0.05,)"
UNBOUNDED = "flood.Allowance.take = lambda _: True"
ARGV = 'note("argv " + json.dumps(sys.argv[sys.argv.index("open"):]))\n'
SHOWN = 'note("file " + json.dumps(open(sys.argv[1]).read()))\n'
WAITING = 'say("waiting", reason="vm1 has stopped", hint="")\n'
#: From the same ssh, with the same socket.
AGAIN = 'say("ready", session="00000001", title="Again")\n'
#: The first connection is lost on a signal of the test, the others last.
DROPS = "listener = ready()\nif turn == 1:\n    {wait}    sys.exit(255)\nhold()\n"
LOST = (
    "spice-connect: the connection to kvm was lost; connecting again\n"
    "hint: Ctrl-C ends the trying\n"
)
BACK = "spice-connect: connected to kvm again\n"


def drops(stage: Stage) -> str:
    return ARGV + DROPS.format(wait=stage.waits())


def ended(client: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    _, err = client.communicate(timeout=20)
    return client.returncode, err


def closes(stage: Stage, turn: int) -> str:
    """A viewer that the user closes, at its start number `turn`, on a signal of the test."""
    return SHOWN + f"if turn == {turn}:\n    {stage.waits('close')}    sys.exit()\n"


class TestVm:
    """The VM restarts within one connection."""

    @pytest.mark.parametrize(
        ("args", "flags"),
        [
            ([], ["--keep"]),
            (["--wait"], ["--wait", "--keep"]),
            (["--no-reconnect"], []),
            (["--no-reconnect", "--wait"], ["--wait"]),
        ],
    )
    def test_the_server_is_asked_to_keep_the_session(
        self, stage: Stage, args: list[str], flags: list[str]
    ) -> None:
        stage.ssh(ARGV.replace("json.dumps", "' '.join") + READY)
        stage.viewer("")
        assert stage.run(*args, "vm1")[0] == 0
        assert stage.noted("argv") == " ".join(["open", "--json", *flags, "vm1"])

    def test_the_window_comes_back_by_itself(self, stage: Stage) -> None:
        stage.ssh(f"listener = ready()\n{stage.waits()}{WAITING}{stage.waits('back')}{AGAIN}hold()")
        stage.viewer(closes(stage, 2) + stage.waits())
        client = stage.start("vm1")
        first = stage.pid("viewer")
        stage.go()
        eventually(lambda: not is_alive(first))  # with status 0, as remote-viewer does
        stage.go("back")
        stage.pid("viewer", 2)
        stage.go("close")
        expected = "spice-connect: vm1 has stopped\nspice-connect: 'vm1' is ready\n"
        assert ended(client) == (0, expected)
        old, new = stage.all_noted("file")
        assert "title=A title (vm1)" in old
        assert new == old.replace("A title", "Again")
        assert len(stage.all_noted("ssh")) == 1
        assert stage.left_behind() == []

    def test_waiting_without_a_reason_keeps_the_client_running(self, stage: Stage) -> None:
        """The server needs a second to see what happens to the VM; the viewer ends at once."""
        wordless = 'say("waiting", reason="", hint="")\n'
        stage.ssh(
            f"listener = ready()\n{stage.waits()}{wordless}{stage.waits('back')}{AGAIN}hold()"
        )
        stage.viewer(closes(stage, 2) + stage.waits())
        client = stage.start("vm1")
        first = stage.pid("viewer")
        stage.go()
        eventually(lambda: not is_alive(first))
        time.sleep(1)  # longer than REASON_GRACE
        stage.go("back")
        stage.pid("viewer", 2)
        stage.go("close")
        assert ended(client) == (0, "spice-connect: 'vm1' is ready\n")

    @pytest.mark.parametrize("status", [0, 1])
    def test_a_viewer_may_end_before_the_server_says_why(self, stage: Stage, status: int) -> None:
        """Then the user has not closed it, and it has not failed."""
        gone = f"while not os.path.exists({str(stage.home / 'gone')!r}):\n    time.sleep(0.005)\n"
        stage.ssh(f"listener = ready()\n{gone}time.sleep(0.2)\n{WAITING}{AGAIN}hold()")
        body = (
            f"if turn == 1:\n    open({str(stage.home / 'gone')!r}, 'w')\n    sys.exit({status})\n"
        )
        stage.viewer(body + stage.waits("close"))
        client = stage.start("vm1")
        stage.pid("viewer", 2)
        stage.go("close")
        expected = "spice-connect: vm1 has stopped\nspice-connect: 'vm1' is ready\n"
        assert ended(client) == (0, expected)

    def test_a_viewer_that_does_not_end_is_ended_before_the_new_one(self, stage: Stage) -> None:
        stage.ssh(f"listener = ready()\n{stage.waits()}{WAITING}{AGAIN}hold()")
        client = stage.start("vm1")
        first = stage.pid("viewer")
        stage.go()
        second = stage.pid("viewer", 2)
        assert not is_alive(first)
        assert is_alive(second)
        (directory,) = stage.runtime.iterdir()
        assert {entry.name for entry in directory.iterdir()} == {"spice", "session.vv", "log-1"}
        client.terminate()

    def test_the_session_ends_if_the_vm_does_not_come_back(self, stage: Stage) -> None:
        end = 'say("end", code=69, reason="vm1 is off", hint="later")\nsys.exit(69)\n'
        stage.ssh(f"listener = ready()\n{stage.waits()}{WAITING}{end}")
        stage.viewer(stage.waits())
        client = stage.start("vm1")
        stage.pid("viewer")
        stage.go()
        lines = ["spice-connect: vm1 has stopped", "spice-connect: vm1 is off", "hint: later", ""]
        assert ended(client) == (69, "\n".join(lines))
        assert stage.left_behind() == []

    def test_a_second_ready_opens_no_second_window(self, stage: Stage) -> None:
        stage.ssh(f"listener = ready()\n{AGAIN}note('said .')\nhold()\n")
        stage.viewer(stage.waits())
        client = stage.start("vm1")
        stage.noted("said")
        stage.pid("viewer")
        stage.go()
        assert ended(client) == (0, "")
        assert len(stage.all_noted("viewer")) == 1

    def test_without_a_viewer_the_same_path_is_printed_again(self, stage: Stage) -> None:
        stage.ssh(f"listener = ready()\n{WAITING}{AGAIN}hold()")
        client = stage.start("--no-viewer", "vm1")
        assert client.stdout is not None
        first, second = client.stdout.readline(), client.stdout.readline()
        assert first == second != ""
        client.terminate()

    def test_many_restarts_leak_no_descriptors(self, stage: Stage) -> None:
        stage.ssh(
            f"listener = ready()\nfor turn in range(2, 23):\n"
            f"    wait_for({str(stage.home)!r} + '/go%d' % turn)\n    {WAITING}    {AGAIN}hold()\n"
        )
        stage.viewer("note('up .')\nhold()\n")
        client = stage.start("vm1", patch=UNBOUNDED)
        counts = list[int]()
        for turn in range(1, 23):
            eventually(partial(is_up, stage, turn))
            counts.append(descriptors(client.pid) + descriptors(janitor_of(client.pid)))
            stage.go(f"go{turn + 1}")
        assert max(counts[2:]) <= counts[1]
        client.terminate()


def is_up(stage: Stage, turn: int) -> bool:
    return len(stage.all_noted("up")) == turn


def janitor_of(pid: int) -> int:
    comms = {child: Path(f"/proc/{child}/comm").read_text() for child in children(pid)}
    (found,) = [child for child, comm in comms.items() if comm == "spice-janitor\n"]
    return found


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class TestWait:
    """--wait with a VM that is off."""

    OFF = 'say("waiting", reason="vm1 is off; waiting", hint="Ctrl-C ends it")\n'

    def test_a_message_is_shown_and_then_the_window(self, stage: Stage) -> None:
        stage.ssh(f"{self.OFF}{stage.waits()}{READY}")
        stage.viewer("")
        client = stage.start("--wait", "vm1")
        assert client.stderr is not None
        assert client.stderr.readline() == "spice-connect: vm1 is off; waiting\n"
        assert client.stderr.readline() == "hint: Ctrl-C ends it\n"
        assert not stage.all_noted("viewer")
        stage.go()
        assert ended(client) == (0, "spice-connect: 'vm1' is ready\n")

    def test_ctrl_c_ends_it(self, stage: Stage) -> None:
        stage.ssh(f"{self.OFF}hold()")
        client = stage.start("--wait", "vm1")
        assert client.stderr is not None
        client.stderr.readline()
        client.send_signal(signal.SIGINT)
        assert ended(client)[0] == 130
        assert stage.left_behind() == []

    def test_a_refusal_ends_it(self, stage: Stage) -> None:
        stage.ssh(self.OFF + 'say("refused", code=77, reason="no", hint="")\nsys.exit(77)\n')
        assert stage.run("--wait", "vm1")[0] == 77

    def test_a_connection_lost_while_waiting_is_made_again(self, stage: Stage) -> None:
        lost = f"if turn < 3:\n    {self.OFF}    sys.exit(255)\n"
        stage.ssh(ARGV + lost + READY)
        stage.viewer("")
        code, _, err = stage.run("--take-over", "--wait", "vm1", patch=QUICK)
        off = "spice-connect: vm1 is off; waiting\nhint: Ctrl-C ends it\n"
        assert (code, err) == (0, (off + LOST) * 2 + BACK)
        asked = '["open", "--json", "--take-over", "--wait", "--keep", "vm1"]'
        assert stage.all_noted("argv") == [asked] * 3

    def test_connections_lost_while_waiting_are_not_tried_for_ever(self, stage: Stage) -> None:
        stage.ssh(self.OFF + "sys.exit(255)\n")
        code, _, err = stage.run("--wait", "vm1", patch=QUICK + "; reconnect.GIVE_UP = 1")
        assert code == 69
        assert "and did not come back in" in err.splitlines()[-2]

    def test_no_reconnect(self, stage: Stage) -> None:
        stage.ssh(self.OFF + "sys.exit(255)\n")
        code, _, err = stage.run("--wait", "--no-reconnect", "vm1", patch=QUICK)
        assert (code, err.splitlines()[-1]) == (69, "spice-connect: the connection to kvm was lost")
        assert len(stage.all_noted("ssh")) == 1


class TestNetwork:
    """The network fails: a new connection is made if the server agrees."""

    def test_the_window_comes_back_over_a_new_connection(self, stage: Stage) -> None:
        stage.ssh(drops(stage))
        stage.viewer(closes(stage, 2) + HOLD)
        client = stage.start("--take-over", "vm1", patch=QUICK)
        first = stage.pid("viewer")
        stage.go()
        stage.pid("viewer", 2)
        assert not is_alive(first)
        stage.go("close")
        assert ended(client) == (0, LOST + BACK)
        assert stage.all_noted("argv") == [
            '["open", "--json", "--take-over", "--keep", "vm1"]',
            '["open", "--json", "--keep", "--replace", "00000001", "vm1"]',
        ]
        old, new = stage.all_noted("file")
        assert old == new
        assert stage.left_behind() == []

    def test_the_latest_session_is_replaced(self, stage: Stage) -> None:
        stage.ssh(
            ARGV + "if turn == 2:\n    sys.exit(255)\n"
            "listener = ready()\nif turn < 4:\n    sys.exit(255)\nhold()\n"
        )
        client = stage.start("--no-viewer", "vm1", patch=QUICK)
        stage.pid("ssh", 4)
        assert client.stdout is not None
        paths = {client.stdout.readline() for _ in range(3)}
        assert len(paths) == 1
        client.terminate()
        assert ended(client) == (143, LOST + BACK + LOST + BACK)
        found = [re.findall("0000000.", argv) for argv in stage.all_noted("argv")]
        assert found == [[], ["00000001"], ["00000001"], ["00000003"]]

    def test_a_viewer_that_ends_just_before_ssh_was_not_closed_by_the_user(
        self, stage: Stage
    ) -> None:
        stage.ssh(
            f"listener = ready()\nif turn == 1:\n    {stage.waits()}    sys.exit(255)\nhold()\n"
        )
        stage.viewer(
            f"if turn == 1:\n    open({str(stage.home / 'go')!r}, 'w')\n    sys.exit()\nhold()\n"
        )
        client = stage.start("vm1", patch=QUICK)
        stage.pid("viewer", 2)
        client.terminate()
        assert ended(client) == (143, LOST + BACK)

    def test_an_ssh_that_closes_its_output_but_hangs_is_ended(self, stage: Stage) -> None:
        stage.ssh("listener = ready()\nif turn == 1:\n    os.close(1)\nhold()\n")
        client = stage.start("vm1", patch=QUICK)
        stage.pid("viewer", 2)
        assert not is_alive(stage.pid("ssh", 1))
        assert is_alive(stage.pid("ssh", 2))
        client.terminate()

    def test_a_refusal_of_a_new_connection_ends_the_session(self, stage: Stage) -> None:
        refuse = 'say("refused", code=75, reason="vm1 is in use by anne", hint="ask anne")\n'
        stage.ssh(
            f"if turn == 1:\n    listener = ready()\n    sys.exit(255)\n{refuse}sys.exit(75)\n"
        )
        stage.viewer(HOLD)
        code, _, err = stage.run("vm1", patch=QUICK)
        expected = "spice-connect: vm1 is in use by anne\nhint: ask anne\n"
        assert (code, err) == (75, LOST + expected)
        assert len(stage.all_noted("ssh")) == 2

    @pytest.mark.parametrize("code", [69, 70])
    def test_a_host_that_is_still_starting_is_tried_again(self, stage: Stage, code: int) -> None:
        """The same refusal is reported once."""
        refuse = f'say("refused", code={code}, reason="not yet", hint="")\n    sys.exit({code})\n'
        stage.ssh(
            f"if turn == 1:\n    listener = ready()\n    sys.exit(255)\nif turn < 4:\n    {refuse}"
            "listener = ready()\nhold()\n"
        )
        client = stage.start("--no-viewer", "vm1", patch=QUICK)
        stage.pid("ssh", 4)
        assert client.stdout is not None
        client.stdout.readline()
        client.stdout.readline()
        client.terminate()
        told = "spice-connect: not yet; trying again\nhint: Ctrl-C ends the trying\n"
        assert ended(client) == (143, LOST + told + BACK)

    @pytest.mark.parametrize("code", [69, 70])
    def test_if_a_host_refuses_to_the_end_its_last_refusal_is_reported(
        self, stage: Stage, code: int
    ) -> None:
        refuse = f'say("refused", code={code}, reason="off", hint="ask")\nsys.exit({code})\n'
        stage.ssh(f"if turn == 1:\n    listener = ready()\n    sys.exit(255)\n{refuse}")
        stage.viewer(HOLD)
        exit_code, _, err = stage.run("vm1", patch=QUICK + "; reconnect.GIVE_UP = 1")
        assert exit_code == code
        assert err.splitlines()[-2:] == ["spice-connect: off", "hint: ask"]

    @pytest.mark.parametrize("code", [69, 70])
    def test_a_refusal_of_the_first_connection_is_final(self, stage: Stage, code: int) -> None:
        stage.ssh(f'say("refused", code={code}, reason="off", hint="")\nsys.exit({code})\n')
        assert stage.run("vm1", patch=QUICK) == (code, "", "spice-connect: off\n")
        assert len(stage.all_noted("ssh")) == 1

    @pytest.mark.parametrize("code", [69, 70])
    def test_the_server_s_end_of_a_restored_session_is_final(self, stage: Stage, code: int) -> None:
        end = f'say("end", code={code}, reason="over", hint="")\nsys.exit({code})\n'
        stage.ssh(f"listener = ready()\nif turn == 1:\n    sys.exit(255)\n{end}")
        stage.viewer(HOLD)
        expected = (code, "", LOST + BACK + "spice-connect: over\n")
        assert stage.run("vm1", patch=QUICK) == expected

    def test_the_server_s_end_of_a_session_is_final(self, stage: Stage) -> None:
        end = 'say("end", code=75, reason="taken over", hint="")\nsys.exit(255)\n'
        stage.ssh(f"listener = ready()\n{end}")
        assert stage.run("vm1", patch=QUICK) == (75, "", "spice-connect: taken over\n")
        assert len(stage.all_noted("ssh")) == 1

    def test_an_ssh_killed_on_this_machine_is_not_a_lost_network(self, stage: Stage) -> None:
        stage.ssh("listener = ready()\nos.kill(os.getpid(), 9)\n")
        stage.viewer(HOLD)
        code, _, err = stage.run("vm1", patch=QUICK)
        assert (code, err) == (69, "spice-connect: ssh was ended by SIGKILL\n")
        assert len(stage.all_noted("ssh")) == 1

    def test_a_host_that_was_never_reached_is_not_tried_again(self, stage: Stage) -> None:
        stage.ssh("sys.exit(255)\n")
        assert stage.run("vm1", patch=QUICK)[0] == 69
        assert len(stage.all_noted("ssh")) == 1

    def test_no_reconnect(self, stage: Stage) -> None:
        stage.ssh("listener = ready()\nsys.exit(255)\n")
        stage.viewer(HOLD)
        expected = "spice-connect: the connection to kvm was lost\n"
        assert stage.run("--no-reconnect", "vm1", patch=QUICK) == (69, "", expected)
        assert len(stage.all_noted("ssh")) == 1

    @pytest.mark.parametrize("then", ["sys.exit(255)", "hold()"])
    def test_after_a_while_we_give_up(self, stage: Stage, then: str) -> None:
        """Also if ssh hangs."""
        stage.ssh(f"if turn == 1:\n    listener = ready()\n    sys.exit(255)\n{then}\n")
        stage.viewer(HOLD)
        code, _, err = stage.run("vm1", patch=QUICK + "; reconnect.GIVE_UP = 1")
        assert code == 69
        assert err.splitlines()[2:] == [
            "spice-connect: the connection to kvm was lost, and did not come back in 0 minutes",
            "hint: start spice-connect again when kvm can be reached",
        ]

    def test_a_connection_that_keeps_dropping_is_not_tried_for_ever(self, stage: Stage) -> None:
        stage.ssh("listener = ready()\nsys.exit(255)\n")
        stage.viewer(HOLD)
        patch = f"{QUICK}; {UNBOUNDED}; reconnect.GIVE_UP = 1"
        assert stage.run("vm1", patch=patch)[0] == 69

    def test_after_a_stable_connection_the_time_limit_starts_again(self, stage: Stage) -> None:
        """With a STEADY of 0.5 s: each loss is a new outage."""
        drop = "time.sleep(0.7)\nsys.exit(255)\n"
        stage.ssh(f"listener = ready()\nif turn < 4:\n    {drop.replace(chr(10), '; ')}\nhold()\n")
        patch = QUICK + "; reconnect.GIVE_UP = 1; reconnect.STEADY = 0.5"
        client = stage.start("--no-viewer", "vm1", patch=patch)
        stage.pid("ssh", 4)
        client.terminate()
        assert ended(client)[0] == 143

    @pytest.mark.parametrize("moment", ["pause", "try"])
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_a_signal_while_reconnecting_leaves_nothing(
        self, stage: Stage, moment: str, how: signal.Signals
    ) -> None:
        stage.ssh("if turn == 1:\n    listener = ready()\n    sys.exit(255)\nhold()\n")
        pause = {"pause": 60, "try": 0.05}[moment]
        client = stage.start("vm1", patch=f"reconnect.PAUSES = ({pause},)")
        assert client.stderr is not None
        client.stderr.readline()  # the message about the loss
        if moment == "try":
            stage.pid("ssh", 2)
        client.send_signal(how)
        code, _ = ended(client)
        assert code == (-9 if how == signal.SIGKILL else 128 + how)
        eventually(lambda: not stage.left_behind(), 2)

    def test_a_killed_janitor_is_noticed_in_a_pause(self, stage: Stage) -> None:
        stage.ssh("listener = ready()\nsys.exit(255)\n")
        client = stage.start("--no-viewer", "vm1", patch="reconnect.PAUSES = (60,)")
        assert client.stderr is not None
        client.stderr.readline()
        os.kill(janitor_of(client.pid), signal.SIGKILL)
        assert ended(client)[0] == 70
        assert stage.left_behind() == []


def test_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    outage = Outage()
    assert [outage.pause() for _ in range(7)] == [1, 2, 4, 8, 15, 15, 15]
    now[0] += 297
    assert outage.pause() == outage.left() == 3
    now[0] += 10
    assert outage.pause() == 0
