"""`spicetunnel check` as root: what the broker's user can read counts, not what root can.

`nobody` is the broker's user here. Without root there is nothing to drop.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.admin import eyes
from spicetunnel.admin.cli import run

Output = pytest.CaptureFixture[str]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")

VM1 = "vms: {vm1: {socket: /run/vm1.sock}}\n"
VM2 = "vms: {vm2: {socket: /run/vm2.sock}}\n"


@pytest.fixture
def etc() -> Iterator[Path]:
    """A directory that everybody can reach, with a good map that everybody can read."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "vms.d").mkdir(mode=0o755)
        write(directory / "vms.yaml", VM1, 0o644)
        write(directory / "vms.d" / "lab.yaml", VM2, 0o644)
        yield directory


def write(path: Path, text: str, mode: int) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def check(etc: Path, *options: str) -> int:
    return run(["check", str(etc / "vms.yaml"), "--broker-user", "nobody", *options])


@needs_root
def test_map_that_the_broker_can_read_is_ok(etc: Path, capsys: Output) -> None:
    assert check(etc) == 0
    assert capsys.readouterr().out.startswith(f"{etc}/vms.yaml: ok, 2 vms, 0 grants")


@needs_root
@pytest.mark.parametrize(
    ("closed", "code", "named"),
    [
        ("vms.yaml", 66, "vms.yaml"),
        ("vms.d/lab.yaml", 78, "vms.d/lab.yaml"),
        ("vms.d", 66, "vms.d"),
    ],
)
def test_what_only_root_can_read_the_broker_cannot(
    etc: Path, capsys: Output, closed: str, code: int, named: str
) -> None:
    (etc / closed).chmod(0o700 if closed == "vms.d" else 0o600)
    assert run(["check", str(etc / "vms.yaml"), "--broker-user", "root"]) == 0
    capsys.readouterr()
    assert check(etc) == code
    said = capsys.readouterr()
    assert said.out == ""
    reason, hint = said.err.splitlines()[:2]
    assert reason == f"{etc}/{named}: cannot be read by nobody: permission denied"
    assert hint == f"hint: 'namei -l {etc}/{named}' shows the owner and mode of each step"


@needs_root
@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o400, "secret\n", "cannot be read by nobody: permission denied"),
        (0o444, "secret\n", "may be read by others"),
        (None, "", "cannot be read: no such file or directory"),
    ],
)
def test_password_that_the_broker_cannot_use(
    etc: Path, capsys: Output, mode: int | None, text: str, said: str
) -> None:
    file = etc / "vm1.password"
    if mode is not None:
        write(file, text, mode)
    write(etc / "vms.yaml", VM1.replace("}}", f", password-file: {file}}}}}"), 0o644)
    assert check(etc) == 78
    assert f"{file}: {said}\nhint: " in capsys.readouterr().err


@needs_root
def test_password_of_the_brokers_own_is_fine(etc: Path) -> None:
    file = write(etc / "vm1.password", "secret\n", 0o400)
    os.chown(file, 65534, 65534)
    write(etc / "vms.yaml", VM1.replace("}}", f", password-file: {file}}}}}"), 0o644)
    assert check(etc) == 0


@needs_root
def test_root_stays_root(etc: Path) -> None:
    check(etc)
    assert (os.getresuid(), os.getresgid()) == ((0, 0, 0), (0, 0, 0))


@needs_root
def test_user_of_another_name(etc: Path, capsys: Output) -> None:
    assert run(["check", str(etc / "vms.yaml"), "--broker-user", "no-such-user"]) == 64
    assert capsys.readouterr().err == (
        "spicetunnel: no user 'no-such-user' on this server\nhint: name the broker's user\n"
    )


def test_who_is_not_root_is_told_to_be(
    etc: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert check(etc) == 64
    assert capsys.readouterr().err == (
        "spicetunnel: only root can look as another user\nhint: run it as root\n"
    )


@needs_root
def test_ordinary_person_who_may_not_read_the_map_is_told_who_may(
    etc: Path, capsys: Output
) -> None:
    (etc / "vms.yaml").chmod(0o600)
    os.seteuid(65534)
    try:
        assert run(["check", str(etc / "vms.yaml")]) == 66
    finally:
        os.seteuid(0)
    assert capsys.readouterr().err == (
        f"{etc}/vms.yaml: cannot be read: permission denied\nhint: run this as root\n"
    )


@needs_root
def test_look_that_fails_is_no_good_map(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine is out of memory. A fault that a test cannot provoke otherwise."""
    monkeypatch.setattr(eyes, "read_sources", lambda _: 1 / 0)
    assert check(etc) == 70


@needs_root
@pytest.mark.parametrize("closed", ["keys.d", "keys.d/ann.pub"])
def test_keys_that_only_root_can_read(etc: Path, capsys: Output, closed: str) -> None:
    """sshd's drop-in has them read by `nobody`."""
    (etc / "keys.d").mkdir(mode=0o755)
    write(etc / "keys.d" / "ann.pub", "# no key yet\n", 0o644)
    assert check(etc) == 0
    (etc / closed).chmod(0o700 if closed == "keys.d" else 0o600)
    capsys.readouterr()
    assert check(etc) == 78
    said = f"{etc}/{closed}: cannot be read by nobody: permission denied\n"
    assert capsys.readouterr().err.startswith(said)
