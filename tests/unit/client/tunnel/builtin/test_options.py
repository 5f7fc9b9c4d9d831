"""The command line of the built-in ssh: what ssh.py writes is read, and nothing else is."""

from pathlib import Path

import pytest
from spice_connect.config import Config
from spice_connect.tunnel import ssh
from spice_connect.tunnel.builtin.login import SshError
from spice_connect.tunnel.builtin.options import Place, config_files, parse
from spice_connect.tunnel.ssh import Opening, Talk

LOG = "/run/log"


def words(host: str, verbosity: int = 0) -> list[str]:
    """Without the interpreter in front."""
    config = Config(host, ssh=("built-in",))
    talk = Talk(LOG, verbosity)
    command = ssh.open_command(config, Opening("vm1"), near="/d/spice", talk=talk, retry=True)
    return command[command.index("spice_connect.tunnel.builtin") + 1 :]


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("kvm", Place("kvm")),
        ("anne@kvm", Place("kvm", "anne")),
        ("anne@corp@kvm", Place("kvm", "anne@corp")),
        ("ssh://anne@kvm:2222", Place("kvm", "anne", 2222)),
        ("ssh://anne%40corp@kvm:2222", Place("kvm", "anne@corp", 2222)),
        ("ssh://kvm", Place("kvm")),
        ("ssh://anne@[2001:db8::1]:2222", Place("2001:db8::1", "anne", 2222)),
        ("2001:db8::1", Place("2001:db8::1")),
    ],
)
def test_every_host_that_a_person_may_write(host: str, place: Place) -> None:
    assert parse(words(host)).place == place


def test_what_is_asked_for() -> None:
    wanted = parse(words("kvm"))
    assert (wanted.command, wanted.log) == ("open --json vm1", LOG)
    assert wanted.forward == "/d/spice:/run/spicetunnel/tunnel.sock"
    assert wanted.options["ConnectTimeout"] == "15"
    assert "BatchMode" not in wanted.options
    assert wanted.verbosity == 0


def test_those_who_want_its_talk() -> None:
    assert parse(words("kvm", 3)).verbosity == 2


def test_the_list_may_not_ask() -> None:
    command = ssh.list_command(Config("kvm", ssh=("built-in",)), talk=Talk(LOG), may_prompt=False)
    wanted = parse(command[command.index("spice_connect.tunnel.builtin") + 1 :])
    assert wanted.options["BatchMode"] == "yes"


@pytest.mark.parametrize(
    "more",
    [
        ["-A"],
        ["-X"],
        ["-R", "1:h:2"],
        ["-o", "ProxyCommand=x"],
        ["-o", "StrictHostKeyChecking=no"],
        ["-o", "Tunnel=yes"],
        ["-o", "ServerAliveInterval=x"],
        ["-p", "x"],
    ],
)
def test_other_options_are_refused(more: list[str]) -> None:
    with pytest.raises(SshError):
        parse([*more, *words("kvm")])


@pytest.mark.parametrize(
    ("text", "is_strict"),
    [
        ("StrictHostKeyChecking yes\n", True),
        ("Host other\n  stricthostkeychecking=YES\n", True),
        ("StrictHostKeyChecking ask\n", False),
        ("StrictHostKeyChecking no\n", False),
        ("# StrictHostKeyChecking yes\n", False),
    ],
)
def test_strict_for_any_host_is_strict_for_all(tmp_path: Path, text: str, is_strict: bool) -> None:
    """asyncssh does not read it: so no new host is asked about where it stands at all."""
    file = tmp_path / "config"
    file.write_text(text)
    assert config_files(str(file)) == ([str(file)], is_strict)
