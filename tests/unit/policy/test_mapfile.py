"""A map is only read from a file that nobody else could have written. All files are real."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spicetunnel.policy import mapfile
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import load_map

STRANGER = 54321  # a uid without an account


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "conf" / "vms.yaml"
    path.parent.mkdir(mode=0o755)
    path.write_text("vms: {}\n")
    path.chmod(0o644)
    return path


@pytest.fixture
def disown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Give a path to another owner, and return the owner's name."""

    def give_away(path: Path) -> str:
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER)
            return f"uid {STRANGER}"
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
        return path.owner()

    return give_away


def said_of(path: Path) -> list[str]:
    with pytest.raises(MapError) as refused:
        load_map(path)
    return [f"{problem} | {problem.hint}" for problem in refused.value.problems]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600, 0o444])
def test_a_file_that_only_its_owner_may_write_is_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert load_map(file).vms == {}


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert said_of(file) == [f"{file}: may be written by others | chmod go-w {file}"]


def test_file_of_another_user_is_refused(file: Path, disown: Callable[[Path], str]) -> None:
    owner = disown(file)
    assert f"{file}: belongs to {owner}, not to root | chown root {file}" in said_of(file)


def test_file_in_a_directory_of_another_user_is_refused(
    file: Path, disown: Callable[[Path], str]
) -> None:
    owner, home = disown(file.parent), file.parent
    refusal = f"{file}: lies in {home}, which belongs to {owner}, not to root | chown root {home}"
    assert refusal in said_of(file)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    home = file.parent
    refusal = f"{file}: lies in {home}, which others may write to | chmod go-w {home}"
    assert said_of(file) == [refusal]


def test_a_sticky_directory_is_fine(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert load_map(file).vms == {}


def test_all_reasons_are_reported_at_once(file: Path) -> None:
    file.chmod(0o666)
    file.parent.chmod(0o777)
    assert len(said_of(file)) == 2


def test_symlink_is_judged_by_its_target(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert load_map(link).vms == {}
    file.chmod(0o666)
    assert said_of(link) == [f"{link}: may be written by others | chmod go-w {link}"]


def test_a_symlink_into_an_open_directory_is_refused(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    file.parent.chmod(0o777)
    assert f"lies in {file.parent}" in said_of(link)[0]


def test_symlink_made_after_the_check_is_not_followed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    monkeypatch.setattr(os.path, "realpath", lambda path, **_: str(path))
    assert "cannot be read: too many levels of symbolic links" in said_of(link)[0]


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "vms.yaml"
    os.mkfifo(path, 0o600)
    with time_limit(5):
        assert said_of(path) == [f"{path}: is not a regular file | it must be a plain file"]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fail instead of hanging in a system call."""

    def give_up(*_: object) -> None:
        pytest.fail(f"still waiting after {seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/null", "is not a regular file | it must be a plain file"),
        ("/dev", "is a directory, not a file | name the file in it"),
    ],
)
def test_device_or_directory_is_refused(path: str, said: str) -> None:
    assert said_of(Path(path)) == [f"{path}: {said}"]


def test_a_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        said = "cannot be read: no such device or address | it must be a plain file"
        assert said_of(path) == [f"{path}: {said}"]


def test_a_file_of_4_mib_is_read_and_one_byte_more_is_not(file: Path) -> None:
    text = b"vms: {}\n" + b"#" * (4 * 1024 * 1024 - 8)
    file.write_bytes(text)
    assert load_map(file).vms == {}
    file.write_bytes(text + b"#")
    assert said_of(file)[0].startswith(f"{file}: is larger than 4 MiB | ")


def test_huge_sparse_file_is_refused_without_reading_it(file: Path) -> None:
    os.truncate(file, 1 << 40)
    assert said_of(file)[0].startswith(f"{file}: is larger than 4 MiB | ")


@pytest.mark.parametrize("name", ["missing", "missing/vms.yaml", "vms.yaml/x"])
def test_missing_file(file: Path, name: str) -> None:
    with pytest.raises(MapError, match="cannot be read: no") as refused:
        load_map(file.parent / name)
    assert refused.value.exit_code == os.EX_NOINPUT
    assert refused.value.hint == "create the file, or correct its path"


def test_a_file_that_this_user_may_not_read(unreadable: Path) -> None:
    with pytest.raises(MapError, match="cannot be read: permission denied") as refused:
        load_map(unreadable)
    assert refused.value.exit_code == os.EX_NOINPUT
    assert "'namei -l " in refused.value.hint


@pytest.fixture
def unreadable(file: Path) -> Iterator[Path]:
    """Root may read everything, so become another user for a while."""
    file.chmod(0)
    user = os.geteuid()
    os.seteuid(user or STRANGER)
    try:
        yield file
    finally:
        os.seteuid(user)


def test_control_characters_of_a_file_name_are_not_shown(tmp_path: Path) -> None:
    assert said_of(tmp_path / "a\x1b[2J\nb")[0].isprintable()


def test_no_descriptor_is_left_open(file: Path) -> None:
    before = os.listdir("/proc/self/fd")
    load_map(file)
    file.chmod(0o666)
    said_of(file)
    said_of(file.parent)
    assert os.listdir("/proc/self/fd") == before


def test_descriptors_are_not_inherited(file: Path) -> None:
    for flags in (mapfile._OPEN_FILE, mapfile._OPEN_DIRECTORY):
        assert flags & os.O_CLOEXEC
