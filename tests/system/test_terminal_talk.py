"""The talk on a terminal, as its person sees it: the line of progress, and ssh's own prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stage.command import run
from tests.stage.door import BANNER, PASSWORD, go_to, open_door
from tests.stage.stage import NO_VMS
from tests.stage.tmux import Tmux
from tests.stage.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm


@pytest.fixture
def pc(stage: Stage, broker: Broker, alice: Person) -> Client:
    return stage.client(alice)


@pytest.fixture(scope="module")
def door(stage: Stage) -> Iterator[Sshd]:
    with open_door(stage, stage.person("alice")) as door:
        yield door


@pytest.mark.usefixtures("transport")
def test_progress_is_one_line_and_gone_when_the_viewer_is_up(
    pc: Client, vm1: Vm, screen: Screen
) -> None:
    with Tmux(pc.at(screen)) as terminal:
        record = terminal.record()
        terminal.enter("spice-connect vm1")
        screen.wait_for_colour(vm1.colour.rgb)
        terminal.wait_gone("opening the viewer")
        assert terminal.lines() == ["pc$ spice-connect vm1"]
        steps = "connecting to kvm|asking for vm1|opening the viewer"
        assert re.findall(steps, record.read_text(errors="replace")) == steps.split("|")
        terminal.press("C-c")
        assert terminal.wait_for_prompt()[1:] == ["^C"]


def test_a_slow_host_is_being_connected_to(pc: Client) -> None:
    with Tmux(pc) as terminal:
        go_to_nowhere(pc)
        terminal.enter("spice-connect --no-viewer vm1; echo $?")
        terminal.wait_for("connecting to kvm")
        terminal.press("C-c")
        assert terminal.wait_for_prompt()[1:] == ["^C", "130"]


def go_to_nowhere(pc: Client) -> None:
    text = "Host kvm\n    ProxyCommand sleep 1000\n" + pc.ssh_config.read_text()
    pc.ssh_config.write_text(text)


def test_quiet_shows_no_progress_and_verbose_shows_the_command(pc: Client) -> None:
    go_to_nowhere(pc)
    with Tmux(pc, columns=2000) as terminal:
        terminal.enter("spice-connect -v --no-viewer vm1")
        terminal.wait_for("spice-connect: ssh -F")
        assert "connecting" not in terminal.screen()
        terminal.press("C-c")
        terminal.wait_for_prompt()
        wait_until(lambda: not pc_runs(pc, "sleep 1000"), 10, "the first ssh to end")
        terminal.clear()
        terminal.enter("spice-connect -q --no-viewer vm1")
        wait_until(lambda: pc_runs(pc, "sleep 1000"), 10, "ssh to connect")
        assert terminal.lines() == ["pc$ spice-connect -q --no-viewer vm1"]
        terminal.press("C-c")
        terminal.wait_for_prompt()


def pc_runs(pc: Client, command: str) -> bool:
    return command in run("ps", "-u", pc.person.name, "-o", "args")


@pytest.mark.usefixtures("transport")
def test_twice_verbose_shows_ssh_s_own_talk(pc: Client, vm1: Vm) -> None:
    with Tmux(pc, rows=200) as terminal:
        terminal.enter("spice-connect -vv --no-viewer vm1")
        terminal.wait_for("debug1: ")
        wait_until(lambda: terminal.lines()[-1].endswith("/spice"), 10, "the socket's path")


@pytest.mark.usefixtures("transport")
def test_a_wrong_password_then_the_right_one(pc: Client, door: Sshd, vm1: Vm) -> None:
    go_to(pc, door, PreferredAuthentications="password")
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1")
        terminal.wait_for("st-alice@127.0.0.1's password:")
        terminal.wait_for("logging in to kvm")
        terminal.enter("wrong")
        terminal.wait_for("please try again")
        wait_until(lambda: terminal.screen().count("password:") == 2, 10, "another prompt")
        terminal.enter(PASSWORD)
        terminal.wait_for("/spice")
        shown = terminal.lines()
        assert shown[1:5] == BANNER.rstrip("\n").split("\n")
        assert [line for line in shown[5:] if line] == [
            "st-alice@127.0.0.1's password:",
            "Permission denied, please try again.",
            "st-alice@127.0.0.1's password:",
            shown[-1],
        ]
        assert PASSWORD not in terminal.history()


@pytest.mark.usefixtures("transport")
def test_pam_asks(pc: Client, door: Sshd, vm1: Vm) -> None:
    go_to(pc, door, PreferredAuthentications="keyboard-interactive")
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1")
        terminal.wait_for("(st-alice@127.0.0.1) Password:")
        terminal.enter(PASSWORD)
        terminal.wait_for("/spice")


@pytest.mark.usefixtures("transport")
def test_a_key_s_passphrase(pc: Client, door: Sshd, vm1: Vm) -> None:
    key = pc.home("locked-key")
    key.write_bytes(pc.person.key.read_bytes())
    pc.person.owns(key, 0o600)
    run("ssh-keygen", "-q", "-p", "-N", PASSWORD, "-f", str(key))
    pc.person.owns(key, 0o600)
    go_to(pc, door, PubkeyAuthentication="yes", IdentityFile=str(key), IdentitiesOnly="yes")
    pc.ssh_config.write_text(
        "\n".join(
            line
            for line in pc.ssh_config.read_text().splitlines()
            if "IdentityFile" not in line or str(key) in line
        )
    )
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1")
        terminal.wait_for(f"Enter passphrase for key '{key}':")
        terminal.enter(PASSWORD)
        terminal.wait_for("/spice")


@pytest.mark.usefixtures("transport")
def test_a_new_host_s_key_is_asked_about(pc: Client, door: Sshd, vm1: Vm) -> None:
    """What either ssh writes, ssh-keygen finds."""
    known = pc.home("known_hosts")
    go_to(
        pc,
        door,
        StrictHostKeyChecking="ask",
        UserKnownHostsFile=str(known),
        PreferredAuthentications="password",
    )
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1")
        screen = terminal.wait_for("(yes/no/[fingerprint])?")
        assert "The authenticity of host" in screen
        assert "ED25519 key fingerprint is SHA256:" in screen
        assert "connecting to kvm" not in screen
        terminal.enter("no")
        terminal.wait_for("hint: ask its admin for the fingerprint")
        terminal.wait_for_prompt()
        terminal.clear()
        terminal.enter("spice-connect --no-viewer vm1")
        terminal.wait_for("(yes/no/[fingerprint])?")
        terminal.enter("yes")
        terminal.wait_for("password:")
        terminal.enter(PASSWORD)
        terminal.wait_for("/spice")
    assert "ssh-ed25519" in run("ssh-keygen", "-F", f"[127.0.0.1]:{door.port}", "-f", str(known))


#: As ssh does where a key wants to be touched (readpass.c, notify_start): on stderr, if that is a
#: terminal. No such key is here.
TOUCH = """#!/usr/bin/python3
import os, sys, time
if "-V" in sys.argv:
    sys.exit("OpenSSH_9.2p1")
assert os.isatty(2)
os.write(2, b"Confirm user presence for key ED25519-SK SHA256:abc\\r\\n")
time.sleep(1000)
"""


def test_a_fake_ssh_asks_for_the_touch_of_a_key(pc: Client) -> None:
    ssh = pc.home("touch-ssh")
    ssh.write_text(TOUCH)
    pc.person.owns(ssh, 0o700)
    config = Path(pc.env["XDG_CONFIG_HOME"], "spice-connect/config.toml")
    config.write_text(f'host = "kvm"\nssh = [{json.dumps(str(ssh))}]\n')
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1")
        terminal.wait_for("Confirm user presence for key ED25519-SK SHA256:abc")


def test_a_session_in_the_background_leaves_the_prompt_alone(
    pc: Client, stage: Stage, vm1: Vm
) -> None:
    """What is told comes above what its person types."""
    with Tmux(pc) as terminal:
        terminal.enter("spice-connect --no-viewer vm1 &")
        terminal.wait_for("/spice")
        terminal.press("Enter")
        terminal.type("echo half a line")
        stage.set_map(NO_VMS)
        terminal.wait_for("spice-connect: ")
        terminal.type(" and more")
        terminal.wait_for("pc$ echo half a line and more")
        terminal.press("Enter")
        terminal.wait_for("\nhalf a line and more")
