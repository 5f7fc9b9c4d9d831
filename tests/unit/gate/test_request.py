"""The gate's grammar: what it accepts, and that it refuses everything else."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spicetunnel.common.errors import UsageError
from spicetunnel.gate.request import parse


@pytest.mark.parametrize(
    ("command", "verb", "vm", "json", "take_over"),
    [
        ("", "list", "", False, False),
        ("list", "list", "", False, False),
        ("list --json", "list", "", True, False),
        ("whoami", "whoami", "", False, False),
        ("help", "help", "", False, False),
        ("open vm1", "open", "vm1", False, False),
        ("open --json vm1", "open", "vm1", True, False),
        ("open --take-over vm1", "open", "vm1", False, True),
        ("open --json --take-over vm1", "open", "vm1", True, True),
        ("open list", "open", "list", False, False),
        ("open a", "open", "a", False, False),
        ("open " + "v" * 64, "open", "v" * 64, False, False),
        ("open Win-10_book.keeping", "open", "Win-10_book.keeping", False, False),
    ],
)
def test_valid_command_is_accepted(
    command: str, verb: str, vm: str, json: bool, take_over: bool
) -> None:
    request = parse(command)
    assert (request.verb, request.vm, request.json, request.take_over) == (
        verb,
        vm,
        json,
        take_over,
    )


@pytest.mark.parametrize(
    "command",
    [
        " ",
        "open",
        "open ",
        "open  vm1",
        " open vm1",
        "open vm1 ",
        "open vm1\n",
        "\nopen vm1",
        "open\tvm1",
        "open vm1 vm2",
        "open vm1; id",
        "open vm1;id",
        "open vm1|id",
        "open vm1&",
        "open $(id)",
        "open `id`",
        "open ../vm1",
        "open /run/vm1",
        "open .vm1",
        "open -vm1",
        "open --take-over --json vm1",
        "open --json --json vm1",
        "open --json",
        "open --as root vm1",
        "open vm1 --json",
        "open " + "v" * 65,
        "open vm\u0661",  # a digit, but not an ASCII digit
        "open vmé",
        "open \udcffvm",  # not UTF-8, as os.environ shows it
        "OPEN vm1",
        "Open vm1",
        "list vm1",
        "list --json --json",
        "whoami --json",
        "help me",
        "sh",
        "/bin/sh",
        "scp -t /tmp",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "rsync --server",
        "x" * 65536,
    ],
)
def test_invalid_command_is_refused(command: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(command)
    assert refused.value.exit_code == 64
    answer = refused.value.reason + refused.value.hint
    assert answer.isascii()
    assert answer.isprintable()
    assert len(answer) < 400


ALLOWED = set(string.ascii_letters + string.digits + "._- ")


@given(st.text())
@example("open vm1\x00")
@example("open vm1\r")
@example("open vm1\x85")
def test_command_with_another_character_is_refused(command: str) -> None:
    try:
        parse(command)
    except UsageError:
        return
    assert set(command) <= ALLOWED


@given(
    st.from_regex(r"open (--json )?(--take-over )?[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
)
def test_every_valid_open_command_is_accepted(command: str) -> None:
    assert parse(command).vm == command.rpartition(" ")[2]
