"""The drop-in: what is in it, what may be put into it, and what a real sshd makes of it."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from spicetunnel.admin.cli import run

Output = pytest.CaptureFixture[str]

SHIPPED = Path(__file__).parents[3] / "sshd_config.d" / "50-spicetunnel.conf"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

STRANGER = "daemon"  # an account of every Debian, in no group of ours
#: What must hold for a member of the group, in the words of `sshd -T`.
CONFINED = {
    "forcecommand exec /usr/bin/spicetunnel-gate",
    "disableforwarding no",
    "allowtcpforwarding local",
    "allowstreamlocalforwarding local",
    "permitopen [/run/spicetunnel/tunnel.sock]:*",
    "permitlisten none",
    "gatewayports no",
    "x11forwarding no",
    "allowagentforwarding no",
    "permittunnel no",
    "permittty no",
    "permituserrc no",
    "permituserenvironment no",
    "acceptenv SPICETUNNEL_ACCEPTS_NONE",
    "maxsessions 4",
    "clientaliveinterval 15",
    "clientalivecountmax 3",
}
#: An sshd_config that opens, or closes, all it can.
LAX = """
AcceptEnv LANG LC_* BASH_*
AllowAgentForwarding yes
AllowStreamLocalForwarding yes
AllowTcpForwarding yes
ClientAliveInterval 0
ExposeAuthInfo yes
GatewayPorts yes
MaxSessions 77
PermitListen any
PermitOpen any
PermitTTY yes
PermitTunnel yes
PermitUserEnvironment yes
PermitUserRC yes
X11Forwarding yes
"""
HARDENED = "DisableForwarding yes\nAllowTcpForwarding no\nAllowStreamLocalForwarding no\n"


def rendered(capsys: Output, *options: str) -> str:
    assert run(["sshd-config", *options]) == 0
    return capsys.readouterr().out


def test_the_shipped_file_is_the_default_output(capsys: Output) -> None:
    assert rendered(capsys) == SHIPPED.read_text()


def test_options_replace_every_occurrence(capsys: Output) -> None:
    own = ["--group", "viewers@example.org", "--gate", "/opt/st/gate-1.0", "--run-dir", "/run/st+2"]
    text = rendered(capsys, *own)
    assert "\nMatch Group viewers@example.org\n" in text
    assert "\n    ForceCommand exec /opt/st/gate-1.0 --run-dir /run/st+2\n" in text
    assert "\n    PermitOpen [/run/st+2/tunnel.sock]:*\n" in text
    for default in ("spicetunnel-users", "spicetunnel-gate", "/run/spicetunnel"):
        assert default not in text


def test_the_block_ends_where_the_file_ends() -> None:
    assert SHIPPED.read_text().endswith("\nMatch all\n")


HOSTILE_PATHS = [
    "",
    "gate",
    "/",
    "/gate/",
    "//gate",
    "/usr//gate",
    "/usr/../gate",
    "/./gate",
    "/gate/..",
    "/ga te",
    "/gate\n",
    "/gate\nPermitOpen any",
    "/gate;id",
    "/gate$(id)",
    "/gate`id`",
    "/gate|id",
    "/gate&",
    "/gate#",
    "/gate'",
    '/gate"',
    "/gate\\",
    "/gate*",
    "/gate?",
    "/[gate]",
    "/~gate",
    "/%u",
    "/gate=",
    "/gâte",
    "/gate\0",
    "/gate\x1b[2J",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
@pytest.mark.parametrize("option", ["--gate", "--run-dir"])
def test_a_path_that_sshd_or_a_shell_could_misread(option: str, path: str, capsys: Output) -> None:
    assert run(["sshd-config", option, path]) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"spicetunnel: {option} must be a plain absolute path, not '")
    assert len(said.err.splitlines()) == 2


#: Each with a word of the reason why no Match line can have it.
UNWRITABLE = {
    "": "1 to 255 characters",
    "a" * 256: "1 to 255 characters",
    "-users": "'-'",
    "#users": "comment",
    "!a": "negates",
    "a,b": "separates patterns",
    "*": "wildcard",
    "u?ers": "wildcard",
    'a"': "versions of sshd differ",
    "a\\": "versions of sshd differ",
    "a\\\\b": "versions of sshd differ",
    "a\\'b": "versions of sshd differ",
    "a\n": "nobody can see",
    "a\nMatch all": "nobody can see",
    " a": "a space at an end",
}
#: Names of directories, and how a Match line has them.
WRITABLE = {
    "domain users": '"domain users"',
    "R&D": '"R&D"',
    "Staff (Berlin)": '"Staff (Berlin)"',
    r"EXAMPLE\staff": r'"EXAMPLE\staff"',
    "staff@ad.example": "staff@ad.example",
    "@staff": '"@staff"',
    "it's": '"it\'s"',
    "a=b;c": '"a=b;c"',
    "%a$b": '"%a$b"',
    "Büro": '"Büro"',
    "a#": '"a#"',
}


@pytest.mark.parametrize("option", ["--group", "--shared"])
@pytest.mark.parametrize(("name", "why"), UNWRITABLE.items())
def test_a_name_that_sshd_could_misread(option: str, name: str, why: str, capsys: Output) -> None:
    assert run(["sshd-config", option, name]) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"spicetunnel: {option} cannot be '")
    assert why in said.err
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize(("name", "written"), WRITABLE.items())
def test_a_name_from_a_directory(name: str, written: str, capsys: Output) -> None:
    assert f"\nMatch Group {written}\n" in rendered(capsys, "--group", name)
    assert f"\nMatch User {written}\n" in rendered(capsys, "--shared", name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have other accounts in a namespace")
@pytest.mark.parametrize("name", WRITABLE)
def test_a_real_sshd_finds_the_group_of_that_name(
    name: str, host_key: Path, capsys: Output
) -> None:
    """In a mount namespace of its own, where the account database is the test's."""
    own = host_key.parent
    config = own / "sshd_config"
    config.write_text(f"HostKey {host_key}\n{rendered(capsys, '--group', name)}")
    passwd = "kim:x:4242:4242::/:/bin/sh\nlee:x:4243:4243::/:/bin/sh\n"
    (own / "passwd").write_text(Path("/etc/passwd").read_text() + passwd)
    groups = f"kim:x:4242:\nlee:x:4243:\n{name}:x:4244:kim\n"
    (own / "group").write_text(Path("/etc/group").read_text() + groups)
    (own / "nsswitch.conf").write_text("passwd: files\ngroup: files\n")
    script = 'for each in passwd group nsswitch.conf; do mount --bind "$0/$each" "/etc/$each"; done'
    for user, confined in (("kim", True), ("lee", False)):
        ask = f'{script}; exec {SSHD} -T -f "$0/sshd_config" -C user={user},host=h,addr=192.0.2.1'
        command = ["unshare", "--mount", "sh", "-euc", ask, str(own)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = "forcecommand exec /usr/bin/spicetunnel-gate" in done.stdout.splitlines()
        assert said is confined, user


def test_the_tunnel_socket_s_path_fits_in_107_bytes(capsys: Output) -> None:
    longest = "/" + "r" * 94
    assert f"[{longest}/tunnel.sock]" in rendered(capsys, "--run-dir", longest)
    assert run(["sshd-config", "--run-dir", f"{longest}r"]) == 64
    assert "--run-dir is longer than 95 characters" in capsys.readouterr().err


@pytest.fixture
def host_key(tmp_path: Path) -> Path:
    if SSHD is None or not Path("/run/sshd").is_dir():
        pytest.skip("no sshd on this machine, or not set up: script/setup")
    key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


def in_force(config: Path, user: str) -> set[str]:
    """What a real sshd applies to this user."""
    command = [str(SSHD), "-T", "-f", str(config), "-C", f"user={user},host=h,addr=192.0.2.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("rest", ["", LAX, HARDENED], ids=["plain", "lax", "hardened"])
def test_a_real_sshd_confines_members_and_nobody_else(
    rest: str, host_key: Path, capsys: Output
) -> None:
    ours = grp.getgrgid(os.getgid()).gr_name
    drop_in = host_key.with_name("drop-in.conf")
    drop_in.write_text(rendered(capsys, "--group", ours))
    config = host_key.with_name("sshd_config")
    config.write_text(f"HostKey {host_key}\nInclude {drop_in}\n{rest}")
    assert in_force(config, pwd.getpwuid(os.getuid()).pw_name) >= CONFINED
    others = in_force(config, STRANGER)
    assert not any(line.startswith("forcecommand exec") for line in others)
    assert "permituserenvironment no" in others


def test_what_follows_the_include_is_not_in_our_block(host_key: Path, capsys: Output) -> None:
    config = host_key.with_name("sshd_config")
    text = rendered(capsys, "--group", "no-such-group")
    config.write_text(f"HostKey {host_key}\n{text}MaxSessions 33\n")
    assert "maxsessions 33" in in_force(config, STRANGER)
