import os
from pathlib import Path

import pytest
from spice_connect.tunnel.sshlog import LAST_WORDS, SshLog


class Ear:
    def __init__(self, directory: Path) -> None:
        self.shown, self.heard = list[bytes](), list[str]()
        self.log = SshLog(str(directory), self.shown.append, self.hear)

    def hear(self, message: str) -> bool:
        self.heard.append(message)
        return message.startswith("Authenticated")

    def say(self, *chunks: bytes) -> None:
        fd = os.open(self.log.path, os.O_WRONLY)
        for chunk in chunks:
            os.write(fd, chunk)
            self.log.listen()
        os.close(fd)


@pytest.fixture
def ear(tmp_path: Path) -> Ear:
    return Ear(tmp_path)


def test_messages_are_shown_unchanged_and_kept(ear: Ear) -> None:
    ear.say(b"Permission denied, please ", b"try again.\r\nand a par")
    assert ear.shown == [b"Permission denied, please try again.\r\n"]
    assert ear.log.text() == "Permission denied, please try again.\r\n"
    assert ear.heard == []


@pytest.mark.parametrize(
    "place",
    [
        b"sshconnect2.c:ssh_userauth2():584 (pid=31730): ",
        b"debug1: kex.c:kex_exchange_identification():7 (bin=ssh, uid=0, pid=1): ",
    ],
)
def test_signs_of_progress_are_heard_and_not_shown(ear: Ear, place: bytes) -> None:
    line = place + b'Authenticated to x using "publickey".\r\n'
    ear.say(line[:20], line[20:])
    assert ear.heard == ['Authenticated to x using "publickey".']
    assert (ear.shown, ear.log.text()) == ([], "")


def test_of_other_marked_messages_errors_are_shown_and_debug_messages_are_not(ear: Ear) -> None:
    place = b"sshconnect2.c:userauth_passwd():7 (pid=1): "
    ear.say(place + b"Permission denied, please try again.\r\n", b"debug3: " + place + b"x\r\n")
    assert ear.shown == [b"Permission denied, please try again.\r\n"]
    assert ear.log.text() == "Permission denied, please try again.\r\n"


@pytest.mark.parametrize("line", [b"a.c:f():1: x\n", b"see a.c:f():1 (pid=1): x\n", b"\n"])
def test_other_lines_are_shown(ear: Ear, line: bytes) -> None:
    ear.say(line)
    assert (ear.shown, ear.heard) == ([line], [])


def test_only_the_last_lines_are_kept(ear: Ear) -> None:
    for number in range(1000):
        ear.say(b"line %d\n" % number, b"x" * 50)
    assert len(ear.log.text()) <= LAST_WORDS
    ear.say(b"x" * LAST_WORDS, b"x" * LAST_WORDS, b"\nend\n")
    assert ear.log.text().endswith("\nend\n")
