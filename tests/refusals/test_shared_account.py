"""Many people share one account. Only a key or certificate says which of them somebody is.

charlie and dora have keys but no accounts: charlie may use vm1, dora vm2. st-carol has an account,
and may use vm2 through her group.
"""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.refusals.attacker import canary, local_socket, visit, wait_for_socket
from tests.stage.broker import RUN_DIR, TUNNEL
from tests.stage.command import run
from tests.stage.machine import LOGS, RUN
from tests.stage.process import Process
from tests.stage.spice import link
from tests.stage.sshd import HOST, Sshd
from tests.stage.vm import SOCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

KEYS = RUN / "keys"  # private keys, which these people have at home
KEYS_D = RUN / "keys.d"

MAP = f"""\
delegates: st-spice
vms:
  vm1:
    socket: {SOCKETS}/vm1.sock
    allow:
      - {{user: charlie, from: 127.0.0.0/8}}
      - {{user: st-alice, from: 127.0.0.0/8}}
  vm2:
    socket: {SOCKETS}/vm2.sock
    allow:
      - user: dora
      - group: st-carol
"""


class Shared:
    """A real sshd with the shared account, and ssh with the key of `who`."""

    def __init__(self, stage: Stage, sshd: Sshd, account: Person) -> None:
        self.stage = stage
        self.sshd = sshd
        self.account = account

    def ssh(self, who: str, command: str, *extra: str) -> Process:
        argv = ["ssh", "-F", "/dev/null"]
        for option, value in self.sshd.options(self.account, KEYS / who).items():
            argv += ["-o", f"{option}={value}"]
        words = [command] if command else []
        return Process([*argv, *extra, "--", HOST, *words], LOGS / f"shared-{who}")

    def answer(self, who: str, command: str, *extra: str) -> tuple[int, str]:
        log = LOGS / f"shared-{who}"
        for file in (log.with_suffix(".out"), log.with_suffix(".err")):
            file.unlink(missing_ok=True)
        with self.ssh(who, command, *extra) as ssh:
            return ssh.wait(), ssh.out() + ssh.err()


def make_key(name: str) -> Path:
    key = KEYS / name
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key))
    return key


@pytest.fixture(scope="module")
def shared(stage: Stage) -> Iterator[Shared]:
    account = stage.person("spice", gateway=False)
    for directory in (KEYS, KEYS_D):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o755)
    for name in ("charlie", "dora", "stranger", "authority", "false-authority"):
        make_key(name)
    for name in ("charlie", "dora"):
        shutil.copyfile(KEYS / f"{name}.pub", KEYS_D / f"{name}.pub")
    tool = stage.programs / "spicetunnel"
    places = ("--gate", str(stage.programs / "spicetunnel-gate"), "--run-dir", str(RUN_DIR))
    options = ("--shared", account.name, *places, "--keys-dir", str(KEYS_D))
    drop_in = run(str(tool), "sshd-config", *options)
    with Sshd("shared", f"TrustedUserCAKeys {KEYS}/authority.pub\n{drop_in}") as sshd:
        yield Shared(stage, sshd, account)


@pytest.fixture(autouse=True)
def _running(broker: Broker, stage: Stage, vm1: Vm, vm2: Vm) -> None:
    """Broker and VMs run with this file's map; `broker` restores the usual map."""
    assert stage.set_map(MAP)


@pytest.fixture(params=["/bin/bash", "the gate"])
def shell(request: pytest.FixtureRequest, stage: Stage, shared: Shared) -> Iterator[str]:
    """The account's login shell, with which sshd runs the key's command."""
    chosen = request.param
    gate = str(stage.programs / "spicetunnel-gate")
    run("usermod", "--shell", gate if chosen == "the gate" else chosen, shared.account.name)
    yield str(chosen)
    run("usermod", "--shell", "/bin/bash", shared.account.name)


def test_key_identifies_its_person(shared: Shared, shell: str) -> None:
    for name in ("charlie", "dora"):
        code, said = shared.answer(name, "whoami")
        assert code == 0
        assert f"user: {name}\n" in said


def test_each_key_opens_its_persons_vm_and_no_other(shared: Shared, shell: str) -> None:
    near = local_socket("shared")
    with shared.ssh("charlie", "open vm1", "-L", f"{near}:{TUNNEL}") as ssh:
        ssh.says("vm1 is ready")
        wait_for_socket(near, ssh)
        mark = shared.stage.broker.mark()
        visit_once(near)
        line = shared.stage.broker.wait_audit(lambda x: x["event"] == "channel", since=mark)
        assert (line["user"], line["vm"], line["via"]) == ("charlie", "vm1", "st-spice")
    for name, vm in (("charlie", "vm2"), ("dora", "vm1")):
        code, said = shared.answer(name, f"open {vm}")
        assert code == 77
        assert f"you may not use '{vm}'" in said


def visit_once(near: Path) -> None:
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(5)
        viewer.connect(str(near))
        viewer.sendall(link())
        assert viewer.recv(4) == b"REDQ"


def test_two_people_at_once_over_one_account_are_kept_apart(shared: Shared) -> None:
    nears = {"charlie": local_socket("shared-1"), "dora": local_socket("shared-2")}
    one = shared.ssh("charlie", "open vm1", "-L", f"{nears['charlie']}:{TUNNEL}")
    two = shared.ssh("dora", "open vm2", "-L", f"{nears['dora']}:{TUNNEL}")
    with one, two:
        one.says("vm1 is ready")
        two.says("vm2 is ready")
        for name, vm, ssh in (("dora", "vm2", two), ("charlie", "vm1", one)):
            wait_for_socket(nears[name], ssh)
            mark = shared.stage.broker.mark()
            visit_once(nears[name])
            line = shared.stage.broker.wait_audit(lambda x: x["event"] == "channel", since=mark)
            assert (line["user"], line["vm"]) == (name, vm)


def test_unknown_key_is_refused(shared: Shared) -> None:
    code, said = shared.answer("stranger", "whoami")
    assert code == 255
    assert "Permission denied (publickey)" in said


def test_key_in_the_accounts_own_files_is_refused(shared: Shared) -> None:
    """sshd does not read them: a key there could have a command of its own.

    The global AuthorizedKeysFile, which sshd must not use either, has a key of the account too.
    """
    home = shared.account.directory(shared.account.home / ".ssh")
    for name in ("authorized_keys", "authorized_keys2", "authorized_principals"):
        target = home / name
        shutil.copyfile(KEYS / "stranger.pub", target)
        shared.account.owns(target, 0o600)
    assert shared.answer("stranger", "id")[0] == 255


@pytest.mark.parametrize(
    "command",
    [
        "--as dora",
        "whoami --as dora",
        "open vm2 --as dora",
        "--as dora open vm2",
        "/opt/spicetunnel-stage/venv/bin/spicetunnel-gate --as dora",
        "exec /opt/spicetunnel-stage/venv/bin/spicetunnel-gate --as dora",
        "SSH_ORIGINAL_COMMAND='open vm2' spicetunnel-gate --as dora",
        "id",
    ],
)
def test_command_that_claims_another_name_is_refused(
    shared: Shared, shell: str, command: str
) -> None:
    code, said = shared.answer("charlie", command)
    assert code == 64
    assert "not a command of this gateway" in said


def test_forged_environment_is_ignored(shared: Shared, shell: str) -> None:
    """The stage's sshd sets AcceptEnv * and PermitUserEnvironment yes."""
    target = canary(shared.account, "shared")
    directory = shared.account.directory(shared.account.home / ".ssh")
    environment = directory / "environment"
    environment.write_text("SSH_ORIGINAL_COMMAND=open vm2\nUSER=dora\nLOGNAME=dora\n")
    hook = shared.account.home / "hook"
    hook.write_text(f"touch {target}\n")
    shared.account.owns(hook, 0o755)
    sent = ["-o", f"SetEnv=BASH_ENV={hook} ENV={hook} USER=dora LOGNAME=dora"]
    code, said = shared.answer("charlie", "whoami", *sent)
    assert code == 0
    assert "user: charlie" in said
    assert not target.exists()


@pytest.mark.parametrize("name", ["charlie", "dora", "st-bob", "root"])
def test_speaking_for_others_from_an_account_that_is_not_a_delegate_is_refused(
    stage: Stage, alice: Person, name: str
) -> None:
    """Anybody with a shell can start a gate with --as. The broker asks the kernel for its user."""
    mark = stage.broker.mark()
    gate = [str(stage.programs / "spicetunnel-gate"), "--run-dir", str(RUN_DIR), "--as", name]
    environment = {"SSH_ORIGINAL_COMMAND": "open vm2"}
    with Process(gate, LOGS / "forger", person=alice, env=environment) as process:
        assert process.wait() == 77
        assert "this account may not speak for others" in process.err()
    line = stage.broker.wait_audit(lambda x: x["event"] == "refused", since=mark)
    assert line["uid"] == alice.uid


def test_removing_the_delegate_from_the_map_ends_its_sessions(shared: Shared, stage: Stage) -> None:
    with shared.ssh("charlie", "open vm1") as ssh:
        ssh.says("vm1 is ready")
        assert stage.set_map(MAP.replace("delegates: st-spice\n", ""))
        assert ssh.wait() == 77


@contextmanager
def certified(*principals: str, authority: str = "authority") -> Iterator[None]:
    """The stranger has a certificate for `principals`, next to the key."""
    names = ["-n", ",".join(principals)] if principals else []
    key = KEYS / "stranger"
    run("ssh-keygen", "-q", "-s", str(KEYS / authority), "-I", "the id", *names, f"{key}.pub")
    try:
        yield
    finally:
        Path(f"{key}-cert.pub").unlink()


def test_certificate_identifies_its_person(shared: Shared, shell: str) -> None:
    with certified("charlie"):
        code, said = shared.answer("stranger", "whoami")
        assert code == 0
        assert "user: charlie" in said
        assert shared.answer("stranger", "open vm2")[0] == 77


def test_certificate_of_a_person_with_a_grant_by_group_opens_that_vm(
    shared: Shared, stage: Stage, shell: str
) -> None:
    with certified("st-carol"):
        assert "user: st-carol" in shared.answer("stranger", "whoami")[1]
        assert shared.answer("stranger", "open vm1")[0] == 77
        mark = stage.broker.mark()
        with shared.ssh("stranger", "open vm2") as ssh:
            ssh.says("vm2 is ready")
        line = stage.broker.wait_audit(lambda x: x["event"] == "open", since=mark)
        assert (line["user"], line["via"]) == ("st-carol", "st-spice")


@pytest.mark.parametrize("name", ["nobody-of-the-map", "root", "st-spice", "st-broker"])
def test_certificate_of_a_person_without_a_grant_opens_no_vm(shared: Shared, name: str) -> None:
    """The authority decides who they are. The map decides what they may use: nothing."""
    with certified(name):
        assert f"user: {name}\n" in shared.answer("stranger", "whoami")[1]
        for vm in ("vm1", "vm2"):
            assert shared.answer("stranger", f"open {vm}")[0] == 77


def test_certificate_of_an_untrusted_authority_is_refused(shared: Shared) -> None:
    with certified("charlie", authority="false-authority"):
        assert shared.answer("stranger", "whoami")[0] == 255


HOSTILE = [
    "a b",
    "charlie dora",
    " charlie",
    "charlie\n",
    "\ncharlie",
    "x\nrestrict charlie",
    "-x",
    "--as dora",
    "charlie --as dora",
    "charlie; id",
    "$(id)",
    "x'",
    'x"',
    'x" command="id',
    'x",command="id" charlie',
    'command="id" charlie',
    "# charlie",
    "*",
    "!charlie",
    "%u",
    "../charlie",
    "c" * 65,
    "\N{CYRILLIC SMALL LETTER ES}harlie",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_certificate_with_a_hostile_principal_gains_nothing(shared: Shared, name: str) -> None:
    """Signed by the trusted authority. Alone it is refused; next to a valid name it is ignored."""
    with certified(name):
        assert shared.answer("stranger", "id")[0] == 255
    with certified(name, "dora"):
        code, said = shared.answer("stranger", "whoami")
        assert code == 0
        assert "user: dora\n" in said
        assert shared.answer("stranger", "open vm1")[0] == 77


def test_certificate_without_principals_is_refused(shared: Shared) -> None:
    """It would be valid for every name, so it is refused."""
    with certified():
        assert shared.answer("stranger", "whoami")[0] == 255


def test_certificate_with_a_command_of_its_own_is_refused(shared: Shared) -> None:
    """Not even the authority can make the account run anything but the gate."""
    key = KEYS / "stranger"
    sign = ["ssh-keygen", "-q", "-s", str(KEYS / "authority"), "-I", "the id", "-n", "charlie"]
    run(*sign, "-O", "force-command=id", f"{key}.pub")
    try:
        code, said = shared.answer("stranger", "whoami")
        assert code == 255
        assert "uid=" not in said
    finally:
        Path(f"{key}-cert.pub").unlink()


def test_address_is_believed_only_from_a_shared_account(
    shared: Shared, stage: Stage, alice: Person
) -> None:
    """Both grants are for 127.0.0.0/8. alice's shell reads ~/.bashrc, which could forge hers."""
    with shared.ssh("charlie", "open vm1") as ssh:
        ssh.says("vm1 is ready")
    with stage.gate_ssh(alice, "open vm1") as refused:
        assert refused.wait() == 77
        assert "the address is not believed" in refused.err()


def test_keys_prints_only_keys_with_a_forced_command(shared: Shared, stage: Stage) -> None:
    """Skips files with options of their own, with invalid names, and writable by others."""
    tool = str(stage.programs / "spicetunnel")
    plain = (KEYS / "dora.pub").read_text()
    (KEYS_D / "eve.pub").write_text(f'command="sh" {plain}')
    (KEYS_D / "a b.pub").write_text(plain)
    (KEYS_D / "mallory.pub").write_text(plain)
    (KEYS_D / "mallory.pub").chmod(0o666)
    try:
        lines = run(tool, "keys", "--dir", str(KEYS_D)).splitlines()
    finally:
        for name in ("eve", "a b", "mallory"):
            (KEYS_D / f"{name}.pub").unlink()
    assert [line.rpartition(" ")[2] for line in lines] == ["charlie", "dora"]
    for line in lines:
        name = line.rpartition(" ")[2]
        assert line.startswith(
            f'restrict,port-forwarding,command="exec /usr/bin/spicetunnel-gate --as {name}" ssh-'
        )


def test_tunnel_without_a_session_from_a_shared_account_is_refused(shared: Shared) -> None:
    near = local_socket("shared-none")
    with shared.ssh("charlie", "", "-N", "-L", f"{near}:{TUNNEL}") as ssh:
        wait_for_socket(near, ssh)
        assert visit(near, link()) == b""


def test_list_json_shows_only_the_persons_vms(shared: Shared) -> None:
    code, said = shared.answer("dora", "list --json")
    assert code == 0
    assert [vm["name"] for vm in json.loads(said)["vms"]] == ["vm2"]
