import os
import socket
import stat
from pathlib import Path

import pytest
from spice_connect.errors import UnavailableError
from spice_connect.tunnel import localend


def base(monkeypatch: pytest.MonkeyPatch, runtime: object) -> str:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return localend.parent_directory()


def test_the_session_s_own_directory_is_preferred(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    assert base(monkeypatch, runtime) == str(runtime)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o1700, 0o2700, 0o500])
def test_a_directory_that_others_can_enter_is_not_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, mode: int
) -> None:
    runtime.chmod(mode)
    assert base(monkeypatch, runtime) == "/tmp"


def test_a_directory_of_another_user_is_not_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: runtime.stat().st_uid + 1)
    assert base(monkeypatch, runtime) == "/tmp"


def test_a_symbolic_link_or_a_file_is_not_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    (runtime / "link").symlink_to(runtime)
    (runtime / "file").touch(0o700)
    assert base(monkeypatch, runtime / "link") == "/tmp"
    assert base(monkeypatch, runtime / "file") == "/tmp"


@pytest.mark.parametrize("name", ["a b", "a:b", "a%h", "${HOME}", "a\\b", "é", "a\nb", "a'b"])
def test_a_path_that_ssh_would_expand_is_not_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, name: str
) -> None:
    odd = runtime / name
    odd.mkdir(0o700)
    assert base(monkeypatch, odd) == "/tmp"


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent"])
def test_no_directory_at_all(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert base(monkeypatch, value) == "/tmp"


def deep(runtime: Path, length: int) -> Path:
    path = runtime / ("x" * (length - len(str(runtime)) - 1))
    path.mkdir(0o700)
    return path


def test_the_longest_path_that_is_used_can_be_bound(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    """The kernel and ssh accept 107 bytes."""
    longest = deep(runtime, 82)
    assert base(monkeypatch, longest) == str(longest)
    path = localend.socket_path(localend.make_directory(str(longest)))
    assert len(path) == 107
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def test_a_path_one_longer_is_not_used(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    assert base(monkeypatch, deep(runtime, 83)) == "/tmp"


@pytest.mark.parametrize(("mode", "sound"), [(0o1777, True), (0o777, False), (0o755, True)])
def test_the_fallback_is_used_only_if_nobody_else_can_rename_our_directory(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, mode: int, sound: bool
) -> None:
    runtime.chmod(mode)
    monkeypatch.setattr(localend, "FALLBACK", str(runtime))
    if sound:
        assert base(monkeypatch, "") == str(runtime)
        return
    with pytest.raises(UnavailableError):
        base(monkeypatch, "")


def test_the_directory_is_new_and_private(runtime: Path) -> None:
    first, second = localend.make_directory(str(runtime)), localend.make_directory(str(runtime))
    assert first != second
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o700


def test_an_existing_directory_is_never_used(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    localend.make_directory(str(runtime))
    with pytest.raises(FileExistsError):
        localend.make_directory(str(runtime))


def test_a_directory_that_does_not_become_private_is_not_used(runtime: Path) -> None:
    before = os.umask(0o200)
    try:
        with pytest.raises(PermissionError):
            localend.make_directory(str(runtime))
    finally:
        os.umask(before)
    assert list(runtime.iterdir()) == []
