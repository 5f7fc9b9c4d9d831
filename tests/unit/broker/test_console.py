"""Who is at the console, read from systemd-logind's files: real ones, and altered ones.

The texts below are exact copies of what systemd-logind 252 (Debian 12) wrote for logins through
pam_systemd, at a seat0 without virtual terminals, as tests/stage/logind.py sets it up.
"""

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spicetunnel.broker.console import INTERVAL, Console

ALICE = 1001
BOB = 1002
NOBODY: frozenset[int] = frozenset()
OUR_UID = os.getuid()  # stands in for root, who owns these files on a real machine

EMPTY_SEAT = """\
# This is private data. Do not parse.
IS_SEAT0=1
CAN_MULTI_SESSION=1
CAN_TTY=0
CAN_GRAPHICAL=0
"""
SEAT = (
    EMPTY_SEAT
    + """\
ACTIVE=c1
ACTIVE_UID=1001
SESSIONS=c1
UIDS=1001
"""
)
SESSION = """\
# This is private data. Do not parse.
UID=1001
USER=lgt1
ACTIVE=1
IS_DISPLAY=1
STATE=active
REMOTE=0
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-c1.scope
FIFO=/run/systemd/sessions/c1.ref
SEAT=seat0
SERVICE=stage
POSITION=1
LEADER=12468
REALTIME=1795260889595341
MONOTONIC=7052955224
"""
#: c1 above, after its login program ended and another session came to the foreground.
CLOSING_BEHIND = """\
# This is private data. Do not parse.
UID=1001
USER=lgt1
ACTIVE=0
IS_DISPLAY=1
STATE=closing
REMOTE=0
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-c1.scope
SEAT=seat0
SERVICE=stage
POSITION=0
LEADER=12468
REALTIME=1795260889595341
MONOTONIC=7052955224
"""
#: A login with PAM_RHOST set, as sshd sets it.
REMOTE = """\
# This is private data. Do not parse.
UID=1002
USER=lgt2
ACTIVE=1
IS_DISPLAY=0
STATE=active
REMOTE=1
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-c3.scope
FIFO=/run/systemd/sessions/c3.ref
REMOTE_HOST=192.0.2.7
SERVICE=stage
POSITION=0
LEADER=13394
REALTIME=1795260897645157
MONOTONIC=7061005040
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of logind's files, with alice's active session at seat0."""
    for directory in ("seats", "sessions"):
        (tmp_path / directory).mkdir()
    write(tmp_path / "seats/seat0", SEAT)
    write(tmp_path / "sessions/c1", SESSION)
    return tmp_path


def write(path: Path, text: str | bytes) -> None:
    """Replace the file in one step, as logind does."""
    new = path.with_name(f".#{path.name}new")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    new.chmod(0o644)
    new.rename(path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(f"\n{old}") == 1
    write(path, text.replace(f"\n{old}", f"\n{new}"))


def at_console(root: Path) -> frozenset[int]:
    return Console(root, OUR_UID).uids()


def test_user_of_the_active_session_is_at_the_console(root: Path) -> None:
    assert at_console(root) == {ALICE}


def test_files_are_read_again_for_each_query(root: Path) -> None:
    console = Console(root, OUR_UID)
    assert console.uids() == {ALICE}
    write(root / "seats/seat0", EMPTY_SEAT)
    assert console.uids() == NOBODY


def test_remote_session_does_not_count(root: Path) -> None:
    write(root / "sessions/c3", REMOTE)
    assert at_console(root) == {ALICE}


def test_after_a_user_switch_only_the_new_user_counts(root: Path) -> None:
    """alice's own session is in the background, still closing."""
    write(root / "sessions/c1", CLOSING_BEHIND)
    write(root / "sessions/c2", SESSION.replace("UID=1001", "UID=1002"))
    write(root / "seats/seat0", EMPTY_SEAT + "ACTIVE=c2\nACTIVE_UID=1002\n")
    assert at_console(root) == {BOB}


def test_nobody_counts_while_logind_has_written_one_of_two_files(root: Path) -> None:
    """The seat's file names bob already, but his session's file does not say `active` yet."""
    write(root / "sessions/c2", CLOSING_BEHIND.replace("1001", "1002").replace("closing", "online"))
    write(root / "seats/seat0", EMPTY_SEAT + "ACTIVE=c2\nACTIVE_UID=1002\n")
    assert at_console(root) == NOBODY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("CLASS=user", "CLASS=greeter", id="greeter"),
        pytest.param("CLASS=user", "CLASS=lock-screen", id="lock-screen"),
        pytest.param("CLASS=user", "CLASS=manager", id="manager"),
        pytest.param("CLASS=user", "CLASS=background", id="background"),
        pytest.param("CLASS=user", "CLASS=user-early", id="a class of newer versions"),
        pytest.param("CLASS=user\n", "", id="no class"),
        pytest.param("REMOTE=0", "REMOTE=1", id="remote"),
        pytest.param("REMOTE=0", "REMOTE=no", id="remote in an unknown form"),
        pytest.param("REMOTE=0\n", "", id="no word on remote"),
        pytest.param("STATE=active", "STATE=online", id="in the background"),
        pytest.param("STATE=active", "STATE=closing", id="closing, still in the foreground"),
        pytest.param("STATE=active", "STATE=opening", id="opening"),
        pytest.param("STATE=active\n", "", id="no state"),
        pytest.param("ACTIVE=1", "ACTIVE=0", id="not active"),
        pytest.param("ACTIVE=1\n", "", id="no word on active"),
        pytest.param("SEAT=seat0", "SEAT=seat1", id="another seat"),
        pytest.param("SEAT=seat0\n", "", id="no seat"),
        pytest.param("UID=1001", "UID=1002", id="another uid"),
        pytest.param("UID=1001", "UID=01001", id="the uid with a leading zero"),
        pytest.param("UID=1001\n", "", id="no uid"),
        pytest.param("SERVICE=stage", "REMOTE=0", id="a duplicate key"),
        pytest.param("SERVICE=stage", "a word", id="a line that is no assignment"),
        pytest.param("SERVICE=stage", 'SERVICE="a\nb"', id="a value of two lines"),
        pytest.param("SERVICE=stage", "=", id="an empty key"),
        pytest.param("SERVICE=stage", " UID=1001", id="an indented line"),
        pytest.param("REMOTE=0", "REMOTE=0 ", id="a trailing blank"),
        pytest.param("REMOTE=0", 'REMOTE="0', id="a missing quote"),
        pytest.param("REMOTE=0", "REMOTE=\"0'", id="two kinds of quotes"),
        pytest.param("REMOTE=0", 'REMOTE="0"1', id="text after the closing quote"),
    ],
)
def test_session_counts_only_if_well_formed_local_and_active(
    root: Path, old: str, new: str
) -> None:
    edit(root / "sessions/c1", old, new)
    assert at_console(root) == NOBODY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("ACTIVE=c1\n", "", id="no active session"),
        pytest.param("ACTIVE=c1", "ACTIVE=", id="an empty active session"),
        pytest.param("ACTIVE=c1", "ACTIVE=c2", id="an active session without a file"),
        pytest.param("ACTIVE=c1", "ACTIVE=../sessions/c1", id="a path"),
        pytest.param("ACTIVE=c1", "ACTIVE=.", id="a directory"),
        pytest.param("ACTIVE_UID=1001\n", "", id="no uid"),
        pytest.param("ACTIVE_UID=1001", "ACTIVE_UID=1002", id="another uid"),
        pytest.param("ACTIVE_UID=1001", "ACTIVE_UID=", id="an empty uid"),
        pytest.param("SESSIONS=c1", "ACTIVE=c1", id="a duplicate key"),
        pytest.param("SESSIONS=c1", "c1", id="a line that is no assignment"),
    ],
)
def test_seat_counts_only_if_it_names_its_active_session_and_uid(
    root: Path, old: str, new: str
) -> None:
    edit(root / "seats/seat0", old, new)
    assert at_console(root) == NOBODY


@pytest.mark.parametrize("uid", ["alice", "-1", "1e3", "1_001", "\u0661\u0660", "10010010010"])
def test_malformed_uid_does_not_count_even_if_both_files_agree(root: Path, uid: str) -> None:
    for file in ("seats/seat0", "sessions/c1"):
        write(root / file, (root / file).read_text().replace("UID=1001", f"UID={uid}"))
    assert at_console(root) == NOBODY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("REMOTE=0", 'REMOTE="0"', id="double quotes"),
        pytest.param("UID=1001", "UID='1001'", id="single quotes"),
        pytest.param("SERVICE=stage", "# UID=1002", id="a comment"),
        pytest.param("SERVICE=stage", "", id="an empty line"),
        pytest.param("SERVICE=stage", "NEW_THING=x=y", id="a key of newer versions"),
        pytest.param("SERVICE=stage", "SERVICE=it's", id="an apostrophe"),
        pytest.param("SERVICE=stage", "DISPLAY=:0\u2028UID=1002", id="a Unicode line separator"),
        pytest.param("TYPE=tty", "TYPE=wayland", id="wayland"),
        pytest.param("SERVICE=stage", "LOCKED_HINT=1", id="locked: still that person's seat"),
    ],
)
def test_irrelevant_differences_in_the_session_file_change_nothing(
    root: Path, old: str, new: str
) -> None:
    edit(root / "sessions/c1", old, new)
    assert at_console(root) == {ALICE}


def test_every_seat_counts(root: Path) -> None:
    write(root / "seats/seat1", SEAT.replace("c1", "c2").replace("1001", "1002"))
    other = SESSION.replace("UID=1001", "UID=1002").replace("seat0", "seat1")
    write(root / "sessions/c2", other)
    assert at_console(root) == {ALICE, BOB}


def test_malformed_seat_does_not_affect_another(root: Path) -> None:
    write(root / "seats/seat1", "garbage")
    assert at_console(root) == {ALICE}


@pytest.mark.parametrize("name", [".#seat0Zx8q1", "seat0~", "seat", "other"])
def test_file_whose_name_is_no_seat_is_ignored(root: Path, name: str) -> None:
    """logind writes to a temporary file first, and a crash may leave one."""
    edit(root / "sessions/c1", "SEAT=seat0", f"SEAT={name}")
    (root / "seats/seat0").rename(root / "seats" / name)
    assert at_console(root) == NOBODY


def remove(file: Path) -> None:
    file.unlink()


def symlink(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def huge(file: Path) -> None:
    write(file, file.read_text() + "#" * 100_000)


def binary(file: Path) -> None:
    write(file, file.read_bytes() + b"SERVICE=\xff\n")


def empty(file: Path) -> None:
    write(file, "")


def writable_by_group(file: Path) -> None:
    file.chmod(0o664)


def writable_by_others(file: Path) -> None:
    file.chmod(0o646)


@pytest.mark.parametrize("name", ["seats/seat0", "sessions/c1"])
@pytest.mark.parametrize(
    "spoil",
    [
        remove,
        symlink,
        directory,
        huge,
        binary,
        empty,
        writable_by_group,
        writable_by_others,
    ],
)
def test_file_that_logind_would_not_write_is_ignored(
    root: Path, spoil: Callable[[Path], None], name: str
) -> None:
    spoil(root / name)
    assert at_console(root) == NOBODY


@pytest.mark.parametrize("has_writer", [False, True])
@pytest.mark.parametrize("name", ["seats/seat0", "sessions/c1"])
def test_fifo_is_ignored_and_does_not_block(root: Path, name: str, has_writer: bool) -> None:
    content = (root / name).read_bytes()
    (root / name).unlink()
    os.mkfifo(root / name, 0o644)
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as writer:
        if has_writer:
            other_end = writer.enter_context(open(root / name, "r+b", buffering=0))
            other_end.write(content)
        looking = pool.submit(at_console, root)
        try:
            assert looking.result(timeout=10) == NOBODY
        finally:
            # Releases a reader that blocks after all.
            os.close(os.open(root / name, os.O_RDWR))


def test_files_of_another_owner_are_ignored(root: Path) -> None:
    assert Console(root, OUR_UID + 1).uids() == NOBODY


def test_nobody_counts_if_no_descriptor_is_free(root: Path) -> None:
    """No file can be read then. That is not an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = at_console(root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == NOBODY


def test_host_without_logind_has_nobody_at_its_console(tmp_path: Path) -> None:
    assert at_console(tmp_path / "none") == NOBODY


def test_defaults_are_run_systemd_and_files_of_root() -> None:
    assert vars(Console()) == vars(Console(Path("/run/systemd"), 0))


def test_query_leaves_no_descriptor_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    write(root / "seats/seat1", "garbage")
    write(root / "seats/seat2", SEAT)
    at_console(root)
    assert os.listdir("/proc/self/fd") == before


def test_follow_yields_the_present_users_and_then_each_change(root: Path) -> None:
    """A logout and a login; nothing is yielded while the users stay the same."""

    async def scenario() -> list[frozenset[int]]:
        changes = Console(root, OUR_UID).follow()
        seen = [await anext(changes)]
        write(root / "seats/seat0", EMPTY_SEAT)
        seen.append(await anext(changes))
        asyncio.get_running_loop().call_later(3 * INTERVAL, write, root / "seats/seat0", SEAT)
        seen.append(await anext(changes))
        return seen

    assert asyncio.run(asyncio.wait_for(scenario(), 10)) == [{ALICE}, NOBODY, {ALICE}]


def test_follow_looks_at_least_twice_a_second(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending a session may take two seconds; noticing the change, half a second of them."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert sum(pauses) <= 0.5, "it did not look in time"

    async def scenario() -> list[frozenset[int]]:
        changes = Console(root, OUR_UID).follow()
        before = await anext(changes)
        write(root / "seats/seat0", EMPTY_SEAT)
        return [before, await anext(changes)]

    monkeypatch.setattr(asyncio, "sleep", pause)
    assert asyncio.run(asyncio.wait_for(scenario(), 10)) == [{ALICE}, NOBODY]
    assert sum(pauses) > 0
