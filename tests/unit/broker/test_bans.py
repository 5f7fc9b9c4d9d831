"""The access control list of a socket's file. What it does: tests/system/test_flood.py."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from spicetunnel.broker import bans
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.bans import Bans

NOBODY, SOMEBODY = 65534, 4242
ACL = "system.posix_acl_access"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        (tmp_path / "x.sock").chmod(0o666)
        yield tmp_path / "x.sock"


def entries(path: Path) -> list[tuple[int, int, int]]:
    """Tag, permissions and id of each entry; the kernel takes no malformed list."""
    return list(struct.iter_unpack("<HHI", os.getxattr(path, ACL)[4:]))


def denied(path: Path) -> list[int]:
    return [uid for tag, permissions, uid in entries(path) if (tag, permissions) == (2, 0)]


def ban(made: Bans, *uids: int, seconds: float = 0) -> None:
    """Ban them, and let so much time pass."""

    async def run() -> None:
        for uid in uids:
            made.add(uid)
        await asyncio.sleep(seconds)

    asyncio.run(run())


def test_banned_users_are_listed_and_all_others_keep_their_right(path: Path) -> None:
    made = Bans(path, Audit())
    ban(made, NOBODY, SOMEBODY)
    assert denied(path) == [SOMEBODY, NOBODY]
    assert [each for each in entries(path) if each[0] != 2] == [
        (1, 6, 0xFFFFFFFF),
        (4, 6, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 6, 0xFFFFFFFF),
    ]


def test_ban_ends_and_the_next_one_is_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bans, "SHORTEST", 0.01)
    made = Bans(path, Audit())
    for _ in range(2):
        ban(made, NOBODY, seconds=0.1)
        assert denied(path) == []
    said = capsys.readouterr().err
    assert said.count("it floods x.sock: shut out for") == 2
    assert made._seconds[NOBODY] == 0.02


def test_bans_of_the_broker_before_are_lifted(path: Path) -> None:
    ban(Bans(path, Audit()), NOBODY)
    assert denied(path) == [NOBODY]
    Bans(path, Audit())
    assert denied(path) == []


def test_list_of_the_admins_stays(path: Path) -> None:
    """They let in one more user; a ban is a user without any permission."""
    owner, others = (1, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)
    theirs = [owner, (2, 6, 1000), (4, 0, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), others]
    packed = b"".join(struct.pack("<HHI", *each) for each in theirs)
    os.setxattr(path, ACL, struct.pack("<I", 2) + packed)
    made = Bans(path, Audit())
    ban(made, NOBODY)
    assert [each for each in entries(path) if each[2] != NOBODY] == theirs


def test_list_that_cannot_be_written_is_a_fault_in_the_log(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Bans(path, Audit())
    path.unlink()
    ban(made, NOBODY)
    assert "cannot shut a user out: no such file" in capsys.readouterr().err
