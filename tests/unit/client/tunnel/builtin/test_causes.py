"""The real program names in its log what sshlog.py explains, and refuses what it cannot do."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from spice_connect.tunnel import causes
from spice_connect.tunnel.sshlog import SshLog

PROGRAM = [sys.executable, "-P", "-m", "spice_connect.tunnel.builtin"]


def fail(tmp_path: Path, config: str, *options: str) -> tuple[str, str]:
    """What it tells the person, and the cause. Nobody is there to answer it."""
    (tmp_path / "config").write_text(
        f"Host kvm\n  HostName 127.0.0.1\n  IdentityAgent none\n{config}\n"
    )
    words = ["-F", str(tmp_path / "config"), "-E", str(tmp_path / "log"), *options]
    environment = {**os.environ, "HOME": str(tmp_path)}
    failed = subprocess.run(
        [*PROGRAM, *words, "-o", "BatchMode=yes", "--", "kvm", "list"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (failed.returncode, failed.stdout, failed.stderr) == (255, "", "")
    *told, cause = (tmp_path / "log").read_text().splitlines()
    return "\n".join(line for line in told if not line.startswith("debug1: builtin.c")), cause


@pytest.mark.parametrize(
    "line",
    [
        "RevokedHostKeys /etc/revoked",
        "KnownHostsCommand /bin/true",
        "IdentityAgent SSH_AUTH_SOCK",
        "IdentityAgent $MY_AGENT",
        "IdentityFile none",
        "ProxyUseFdpass yes",
        "UserKnownHostsFile ~/.ssh/%h",
        "GlobalKnownHostsFile /dev/null",
    ],
)
@pytest.mark.parametrize("place", ["config", "included"])
def test_what_asyncssh_would_do_differently_is_refused(
    tmp_path: Path, line: str, place: str
) -> None:
    if place == "included":
        (tmp_path / "more").write_text(f"{line}\n")
    told, cause = fail(tmp_path, line if place == "config" else f"Include {tmp_path}/mor*")
    assert told == f"not in the built-in ssh: {line}"
    assert cause == "cause: configuration"


@pytest.mark.parametrize("line", ["RevokedHostKeys none", "KnownHostsCommand none"])
def test_what_says_none_is_not_refused(tmp_path: Path, line: str, closed_port: int) -> None:
    assert fail(tmp_path, f"{line}\nPort {closed_port}")[1] == "cause: refused"


def test_a_configuration_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    own = tmp_path / ".ssh/config"
    own.write_text("")
    own.chmod(0o664)
    assert fail(tmp_path, f"Port 1\nInclude {own}")[1] == "cause: refused"  # by -F, it may
    command = [*PROGRAM, "-E", str(tmp_path / "log"), "--", "kvm", "list"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    assert subprocess.run(command, env=environment, check=False).returncode == 255
    told, cause = (tmp_path / "log").read_text().splitlines()[-2:]
    assert told == f"others can write to {own}: chmod 600 is needed"
    assert cause == "cause: configuration"


def test_a_proxy_command_for_a_shell_is_refused(tmp_path: Path) -> None:
    told, cause = fail(tmp_path, "ProxyCommand nc %h %p 2>/dev/null")
    assert told == "not in the built-in ssh: a shell for ProxyCommand"
    assert cause == "cause: configuration"


def test_a_key_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    told, cause = fail(tmp_path, "IdentityFile /nowhere")
    assert told == "kvm: [Errno 2] No such file or directory: '/nowhere'"
    assert cause == "cause: configuration"


def test_an_old_encrypted_key_without_its_public_part_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    make = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret", "-f", key]
    subprocess.run(list(map(str, make)), check=True)
    (tmp_path / "key.pub").unlink()
    told, cause = fail(tmp_path, f"IdentityFile {key}")
    assert told == f"not in the built-in ssh: {key} without a .pub"
    assert cause == "cause: configuration"


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_closed_port(tmp_path: Path, closed_port: int) -> None:
    assert fail(tmp_path, f"Port {closed_port}")[1] == "cause: refused"


def test_a_jump_host_of_no_such_name(tmp_path: Path) -> None:
    told, cause = fail(tmp_path, "ProxyJump no-such-host.invalid")
    assert told.startswith("no-such-host.invalid: ")
    assert cause == "cause: no-such-host at no-such-host.invalid"
    error = causes.explain(causes.Attempt("kvm", f"{told}\r\n{cause}\r\n"))
    assert error.reason == (
        "no host called no-such-host.invalid, the jump host on the way to kvm, was found"
    )


def test_a_host_that_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told, cause = fail(tmp_path, f"Port {port}\nConnectTimeout 1")
    assert told == "kvm: no answer in time"
    assert cause == "cause: unreachable"


NAMES = get_args(causes.Name)


@pytest.mark.parametrize("cause", [each for each in causes.CAUSES if each.name in NAMES])
def test_each_cause_by_its_name(cause: causes.Cause) -> None:
    error = causes.explain(causes.Attempt("kvm", f"Connection refused\r\ncause: {cause.name}\r\n"))
    assert error.reason == cause.reason.format(place="kvm")


def test_a_cause_that_is_none() -> None:
    error = causes.explain(causes.Attempt("kvm", "Connection refused\r\ncause: unknown\r\n"))
    assert error.reason == "ssh could not reach kvm or log in there"


def test_a_cause_is_kept_and_not_shown(tmp_path: Path) -> None:
    shown = list[bytes]()
    log = SshLog(str(tmp_path), shown.append, bool)
    fd = os.open(log.path, os.O_WRONLY)
    os.write(fd, b"kvm: no\r\ncause: denied\r\n")
    os.close(fd)
    log.listen()
    assert shown == [b"kvm: no\r\n"]
    assert causes.explain(causes.Attempt("kvm", log.text())).reason == "kvm did not let you log in"
