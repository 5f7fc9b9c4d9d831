"""The lines sshd gets for a shared account: forced, named, and nothing from hostile files."""

from pathlib import Path

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.admin.sshd_config import render_shared
from spicetunnel.common.errors import UsageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0aQ2KxY0u8v0rYb0lWk4m1yqf0hB3oPq9wQm7o6wqk"
OTHER = KEY.replace("AAAAIB0a", "AAAAIZZZ")

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


@pytest.mark.parametrize(
    "text",
    [
        f'command="sh" {KEY}',
        f"no-pty {KEY}",
        f"cert-authority {KEY}",
        f" {KEY}",
        "ssh-ed25519",
        "ssh-ed25519 AAAA\x00BBBB",
        "ssh-ed25519 AAAA\\nssh-ed25519",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"{KEY}\n{KEY} x\ncommand={KEY}",
    ],
)
def test_line_that_is_not_a_plain_key_is_reported_and_left_out(
    keys_d: Path, capsys: Output, text: str
) -> None:
    (keys_d / "charlie.pub").write_text(text)
    (keys_d / "dora.pub").write_text(KEY)
    assert run(["keys", "--dir", str(keys_d)]) == 0
    said = capsys.readouterr()
    for line in said.out.splitlines():
        assert line.startswith("restrict,port-forwarding,command=")
        assert line.count("command=") == 1
    assert "dora" in said.out
    assert "not a plain public key" in said.err


@pytest.mark.parametrize("name", ["a b", "-x", "a'b", 'a"b', "a$(id)", "a\nb", "ä", ".x", "a" * 65])
def test_file_whose_name_is_not_a_persons(keys_d: Path, capsys: Output, name: str) -> None:
    (keys_d / f"{name}.pub").write_text(KEY)
    assert lines(keys_d, capsys) == []


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
