import subprocess
import sys
from pathlib import Path

import pytest
from spice_connect.config import Config
from spice_connect.errors import UnavailableError
from spice_connect.tunnel import ssh
from spice_connect.tunnel.builtin.login import SshError
from spice_connect.tunnel.builtin.options import Place, parse
from spice_connect.tunnel.ssh import Opening, Talk

LOG = "/run/user/1/log"
COMMON = [
    *("-T", "-a", "-x", "-E", LOG, "-o", "ControlMaster=no", "-o", "ControlPath=none"),
    *("-o", "ExitOnForwardFailure=no", "-o", "ClearAllForwardings=no", "-o", "RemoteCommand=none"),
    *("-o", "PermitLocalCommand=no", "-o", "Tunnel=no"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
]
SINCE_8_7 = [
    *("-o", "SessionType=default", "-o", "ForkAfterAuthentication=no"),
    *("-o", f"LogVerbose={','.join(ssh.REPORTING)}"),
]


PLAIN = Opening("vm1")


def fake(tmp_path: Path, banner: str) -> str:
    script = tmp_path / "ssh"
    script.write_text(f"#!{sys.executable} -IS\nimport sys\nsys.exit({banner!r})\n")
    script.chmod(0o755)
    return str(script)


def opened(ssh_program: str, opening: Opening = PLAIN, *, retry: bool = False) -> list[str]:
    config = Config(host="anne@kvm", ssh=(ssh_program, "-F", "a b"))
    return ssh.open_command(config, opening, near="/run/user/1/spice", talk=Talk(LOG), retry=retry)


def test_the_whole_command_line(tmp_path: Path) -> None:
    program = fake(tmp_path, "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.20")
    assert opened(program) == [
        *(program, "-F", "a b", *COMMON, *SINCE_8_7),
        *("-L", "/run/user/1/spice:/run/spicetunnel/tunnel.sock"),
        *("--", "anne@kvm", "open", "--json", "vm1"),
    ]


def test_the_options_have_the_order_of_the_grammar(tmp_path: Path) -> None:
    program = fake(tmp_path, "OpenSSH_9.2p1")
    opening = Opening("vm1", take_over=True, wait=True, keep=True, replace="0123abcd")
    words = ["--take-over", "--wait", "--keep", "--replace", "0123abcd", "vm1"]
    assert opened(program, opening)[-8:] == ["open", "--json", *words]


def test_a_reconnect_replaces_our_own_session_and_nobody_else_s() -> None:
    opening = Opening("vm1", take_over=True, wait=True, keep=True)
    again = Opening("vm1", take_over=False, wait=True, keep=True, replace="0123abcd")
    assert opening.again("0123abcd") == again


def test_a_retry_does_not_wait_long_for_a_dead_host(tmp_path: Path) -> None:
    program = fake(tmp_path, "OpenSSH_9.2p1")
    assert "ConnectTimeout=15" in opened(program, retry=True)
    assert "ConnectTimeout=15" not in opened(program)


def test_verbose_passes_debug_options_to_ssh(tmp_path: Path) -> None:
    config = Config(host="kvm", ssh=(fake(tmp_path, "OpenSSH_9.2p1"),))
    for verbosity, options in (1, []), (2, ["-v"]), (4, ["-v", "-v", "-v"]):
        command = ssh.list_command(config, talk=Talk(LOG, verbosity), may_prompt=True)
        assert [word for word in command if word == "-v"] == options
        assert f"LogVerbose={','.join(ssh.REPORTING)}" in command


def test_the_list_forwards_nothing(tmp_path: Path) -> None:
    program = fake(tmp_path, "OpenSSH_9.2p1")
    command = ssh.list_command(Config(host="kvm", ssh=(program,)), talk=Talk(LOG), may_prompt=True)
    assert command == [program, *COMMON, *SINCE_8_7, "--", "kvm", "list", "--json"]


@pytest.mark.parametrize(
    ("banner", "modern"),
    [
        ("OpenSSH_8.4p1 Debian-5", False),
        ("OpenSSH_8.6p1", False),
        ("OpenSSH_8.7p1", True),
        ("OpenSSH_10.5p1", True),
        ("OpenSSH_for_Windows_8.1p1", False),
        ("something else", False),
    ],
)
def test_an_old_ssh_gets_no_unknown_options(tmp_path: Path, banner: str, modern: bool) -> None:
    command = opened(fake(tmp_path, banner))
    assert ("SessionType=default" in command) is modern
    assert ("LogLevel=INFO" in command) is not modern  # its only way to say why it failed


def test_no_ssh_at_all() -> None:
    with pytest.raises(UnavailableError, match="cannot start /nonexistent/ssh"):
        opened("/nonexistent/ssh")


BUILT_IN = [sys.executable, "-P", "-m", "spice_connect.tunnel.builtin"]


def test_our_own_ssh_where_the_person_says_so() -> None:
    command = opened("built-in")
    assert command[: len(BUILT_IN) + 2] == [*BUILT_IN, "-F", "a b"]
    assert command[-4:] == ["anne@kvm", "open", "--json", "vm1"]


def test_our_own_ssh_takes_the_command_line_that_we_build() -> None:
    wanted = parse(opened("built-in", retry=True)[len(BUILT_IN) :])
    assert wanted.place == Place("kvm", "anne")
    assert wanted.forward == "/run/user/1/spice:/run/spicetunnel/tunnel.sock"
    assert (wanted.command, wanted.config, wanted.log) == ("open --json vm1", "a b", LOG)
    assert wanted.options["ConnectTimeout"] == "15"


@pytest.mark.parametrize("more", [["-A"], ["-o", "Tunnel=yes"], ["-o", "ProxyCommand=x"]])
def test_our_own_ssh_refuses_all_else(more: list[str]) -> None:
    with pytest.raises(SshError, match="does not know"):
        parse([*more, "--", "kvm", "list"])


def test_our_own_ssh_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert opened("ssh")[: len(BUILT_IN)] == BUILT_IN


def test_neither_ssh_nor_asyncssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(ssh, "_has_asyncssh", lambda: False)
    with pytest.raises(UnavailableError, match="no ssh on this machine") as caught:
        opened("ssh")
    assert "openssh" in caught.value.hint
    assert "spicetunnel[asyncssh]" in caught.value.hint
    with pytest.raises(UnavailableError, match="the built-in ssh needs asyncssh"):
        opened("built-in")


def test_our_options_override_the_user_s_configuration_in_a_real_ssh(tmp_path: Path) -> None:
    """The configuration sets everything that would break a session."""
    hostile = tmp_path / "config"
    hostile.write_text(
        """Host *
        HostName kvm.example.org
        Port 2222
        ControlMaster auto
        ControlPath ~/.ssh/%C
        ExitOnForwardFailure yes
        ClearAllForwardings yes
        RemoteCommand tmux
        RequestTTY force
        PermitLocalCommand yes
        LocalCommand touch /tmp/x
        Tunnel point-to-point
        SessionType none
        ForkAfterAuthentication yes
        ForwardAgent yes
        ForwardX11 yes
        IgnoreUnknown UseKeychain
        UseKeychain yes
        """
    )
    config = Config(host="anne@kvm", ssh=("ssh", "-G", "-F", str(hostile)))
    log = str(tmp_path / "log")
    command = ssh.open_command(
        config, Opening("vm1"), near="/tmp/a/spice", talk=Talk(log), retry=True
    )
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in (
        *("user anne", "hostname kvm.example.org", "port 2222"),  # from the user's configuration
        *("controlmaster false", "exitonforwardfailure no", "clearallforwardings no"),
        *("permitlocalcommand no", "tunnel false", "sessiontype default"),
        *("forkafterauthentication no", "forwardagent no", "forwardx11 no", "requesttty false"),
        "localforward /tmp/a/spice /run/spicetunnel/tunnel.sock",
    ):
        assert line in shown
    assert not any(line.startswith(("controlpath", "remotecommand")) for line in shown)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("anne@kvm", ("anne", "kvm", "22")),
        ("anne@kvm:2222", ("anne", "kvm", "2222")),
        ("ssh://anne@kvm:2222", ("anne", "kvm", "2222")),
        ("anne@::1", ("anne", "::1", "22")),
        ("ssh://bob@[2001:db8::1]:2222", ("bob", "2001:db8::1", "2222")),
        ("ssh://anne@[::1]:65535", ("anne", "::1", "65535")),
    ],
)
def test_a_real_ssh_accepts_every_kind_of_host(
    tmp_path: Path, host: str, shown: tuple[str, str, str]
) -> None:
    config = Config(host=host, ssh=("ssh", "-G", "-F", "none"))
    log = str(tmp_path / "log")
    opening = ssh.open_command(
        config, Opening("vm1"), near="/tmp/a/spice", talk=Talk(log), retry=False
    )
    for command in opening, ssh.list_command(config, talk=Talk(log), may_prompt=True):
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
        assert (found["user"], found["hostname"], found["port"]) == shown


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("fe80::1%eth0", ["--", "fe80::1%eth0"]),
        ("[fe80::1%eth0]", ["--", "fe80::1%eth0"]),
        ("anne@[::1]", ["--", "anne@::1"]),
        ("ssh://[::1]", ["--", "::1"]),
        ("ssh://anne@[fe80::1%eth0]:2222", ["-p", "2222", "--", "anne@fe80::1%eth0"]),
        ("ssh://anne@kvm:2222", ["--", "ssh://anne@kvm:2222"]),
    ],
)
def test_ssh_gets_an_ipv6_address_as_it_takes_it(host: str, words: list[str]) -> None:
    command = ssh.list_command(Config(host, ssh=("built-in",)), talk=Talk(LOG), may_prompt=True)
    assert command[-len(words) - 2 :] == [*words, "list", "--json"]
