"""The lines sshd gets for a shared account: forced, named, and nothing from hostile files."""

import subprocess
from pathlib import Path

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.admin.sshd_config import render_shared
from spicetunnel.common.errors import UsageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOOJRRF+6pSlQjW8W1cUqck+IG/i/7oNqz96F9EmMQth"
OTHER = KEY.replace("MQth", "MQti")

PRINCIPALS = "/usr/bin/spicetunnel principals --gate /usr/bin/spicetunnel-gate --run-dir /run/st %k"

Output = pytest.CaptureFixture[str]


@pytest.fixture
def keys_d(tmp_path: Path) -> Path:
    directory = tmp_path / "keys.d"
    directory.mkdir(mode=0o755)
    return directory


def lines(keys_d: Path, capsys: Output, *arguments: str) -> list[str]:
    assert run(["keys", "--dir", str(keys_d), *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_each_key_is_forced_to_its_persons_name(keys_d: Path, capsys: Output) -> None:
    (keys_d / "charlie.pub").write_text(f"# at work\n{KEY} charlie@pc\n\n{OTHER}\n")
    (keys_d / "dora.pub").write_text(f"{KEY}\n")
    forced = 'restrict,port-forwarding,command="exec /usr/bin/spicetunnel-gate --as {}" '
    assert lines(keys_d, capsys) == [
        f"{forced.format('charlie')}{KEY} charlie",
        f"{forced.format('charlie')}{OTHER} charlie",
        f"{forced.format('dora')}{KEY} dora",
    ]


def test_only_the_offered_key(keys_d: Path, capsys: Output) -> None:
    (keys_d / "charlie.pub").write_text(f"{KEY}\n{OTHER}\n")
    (found,) = lines(keys_d, capsys, *OTHER.split())
    assert OTHER in found


def test_another_run_directory_reaches_the_gate(keys_d: Path, capsys: Output) -> None:
    (keys_d / "charlie.pub").write_text(KEY)
    (found,) = lines(keys_d, capsys, "--run-dir", "/run/st")
    assert 'command="exec /usr/bin/spicetunnel-gate --run-dir /run/st --as charlie"' in found


def ssh_keygen(*arguments: str) -> str:
    done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real key of each type: the file of its public half."""
    files = {kind: tmp_path_factory.mktemp("keys") / kind for kind in ("rsa", "ecdsa", "ed25519")}
    for kind, file in files.items():
        ssh_keygen("-q", "-t", kind, "-N", "", "-f", str(file))
    return {kind: file.with_suffix(".pub") for kind, file in files.items()}


def test_what_ssh_keygen_takes_is_taken(
    keys_d: Path, capsys: Output, made: dict[str, Path]
) -> None:
    rsa, ecdsa, ed25519 = (made[kind].read_text().strip() for kind in ("rsa", "ecdsa", "ed25519"))
    tabbed = "\t".join(ecdsa.split()[:2])
    file = keys_d / "charlie.pub"
    file.write_bytes(f"# home\r\n\r\n  \t{rsa}\r\n#\r\n{tabbed}\r\n{ed25519}  a b c".encode())
    assert ssh_keygen("-l", "-f", str(file)).count("SHA256:") == 3
    found = lines(keys_d, capsys)
    assert [line.split()[-3:-1] for line in found] == [
        each.split()[:2] for each in (rsa, ecdsa, ed25519)
    ]
    assert len(lines(keys_d, capsys, *rsa.split()[:2])) == 1, "as sshd asks"


OPTIONS = "has options before the key, where only ours count"
PRIVATE = "is a private key"
BAD_LINES = {
    f'command="sh" {KEY}': OPTIONS,
    f"no-pty {KEY}": OPTIONS,
    f"cert-authority {KEY}": OPTIONS,
    "ssh-ed25519": "is a damaged key",
    KEY[:-4]: "is a damaged key",
    KEY.replace("ssh-ed25519", "ssh-rsa"): "is a damaged key",
    "ssh-ed25519 AAAA\x00BBBB": "is a damaged key",
    KEY.replace(" ", "-cert-v01@openssh.com "): "is a certificate, which needs no file",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----": PRIVATE,
    "PuTTY-User-Key-File-3: ssh-ed25519": "is a private key of PuTTY's",
    f"command={KEY}": "is not a public key",
    "\x1b[2J": "is not a public key",
}


@pytest.mark.parametrize(("text", "said"), BAD_LINES.items())
def test_a_bad_line_is_told_and_the_others_still_count(
    keys_d: Path, capsys: Output, text: str, said: str
) -> None:
    (keys_d / "charlie.pub").write_text(f"{KEY}\n{text}\n{'' if 'PuTTY' in text else OTHER}")
    (keys_d / "dora.pub").write_text(KEY)
    assert run(["keys", "--dir", str(keys_d)]) == 0
    out, err = capsys.readouterr()
    for line in out.splitlines():
        assert line.startswith("restrict,port-forwarding,command=")
        assert line.count("command=") == 1
    names = [line.split()[-1] for line in out.splitlines()]
    assert names == ["charlie"] * (1 if "PuTTY" in text else 2) + ["dora"]
    reason, hint = err.splitlines()
    assert reason == f"{keys_d}/charlie.pub:2: {said}"
    assert hint.startswith("hint: ")
    assert (reason + hint).isprintable()


@pytest.mark.parametrize(
    ("encoding", "what"), [("RFC4716", "RFC 4716"), ("PKCS8", "PKCS #8"), ("PEM", "PEM")]
)
def test_another_encoding_is_named_and_its_hint_gives_the_key(
    keys_d: Path, capsys: Output, made: dict[str, Path], encoding: str, what: str
) -> None:
    file = keys_d / "charlie.pub"
    file.write_text(ssh_keygen("-e", "-m", encoding, "-f", str(made["rsa"])))
    assert run(["keys", "--dir", str(keys_d)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    reason, hint = err.splitlines()
    assert reason.startswith(f"{file}:1: is ")
    assert what in reason
    command = hint.split("'")[1].split()
    assert ssh_keygen(*command[1:]).split()[:2] == made["rsa"].read_text().split()[:2]


def test_text_of_windows(keys_d: Path, capsys: Output) -> None:
    (keys_d / "charlie.pub").write_bytes(f"{KEY}\r\n".encode("utf-8-sig"))
    (keys_d / "dora.pub").write_bytes(f"{KEY}\r\n".encode("utf-16"))
    assert run(["keys", "--dir", str(keys_d)]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["charlie"]
    assert err.startswith(f"{keys_d}/dora.pub: is UTF-16 text\nhint: 'iconv -f UTF-16 -t UTF-8 ")


@pytest.mark.parametrize("name", ["a b", "-x", "a'b", 'a"b', "a$(id)", "a\nb", "ä", ".x", "a" * 65])
def test_file_whose_name_is_not_a_persons(keys_d: Path, capsys: Output, name: str) -> None:
    (keys_d / f"{name}.pub").write_text(KEY)
    assert run(["keys", "--dir", str(keys_d)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "stands in a command that a login shell reads" in err or name == ".x"


def test_file_that_others_may_write(keys_d: Path, capsys: Output) -> None:
    file = keys_d / "charlie.pub"
    file.write_text(KEY)
    file.chmod(0o666)
    assert lines(keys_d, capsys) == []


def test_missing_directory_means_no_keys(keys_d: Path, capsys: Output) -> None:
    assert lines(keys_d / "missing", capsys) == []


def test_drop_in_of_a_shared_account_lets_no_unforced_key_in() -> None:
    text = render_shared("spice", "/usr/bin/spicetunnel-gate", "/run/st", "/etc/k.d")
    words = [line.split() for line in text.splitlines()]
    assert ["Match", "User", "spice"] in words
    assert ["AuthenticationMethods", "publickey"] in words
    assert ["AuthorizedKeysFile", "none"] in words
    assert not [line for line in words if line[:1] == ["ForceCommand"]]
    # sshd 9.2 drops a principals command that stands behind a keys command.
    options = [line[0] for line in words if line]
    assert ["AuthorizedPrincipalsCommand", *PRINCIPALS.split()] in words
    assert options.index("AuthorizedPrincipalsCommand") < options.index("AuthorizedKeysCommand")


@pytest.mark.parametrize("account", ["", "-x", "a,b", "*", "!root", "a\nMatch all"])
def test_account_that_sshd_could_misread(account: str) -> None:
    with pytest.raises(UsageError):
        render_shared(account, "/usr/bin/spicetunnel-gate", "/run/st", "/etc/k.d")
