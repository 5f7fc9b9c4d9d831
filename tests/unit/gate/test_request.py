"""The gate's grammar: what it accepts, and that it refuses everything else."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spicetunnel.common.errors import UsageError
from spicetunnel.gate.request import Request, parse


def parsed(command: str) -> tuple[str, str, dict[str, object]]:
    """Verb, VM, and those options that are given."""
    request = parse(command)
    options = {name: getattr(request, name) for name in set(Request.__slots__) - {"verb", "vm"}}
    return request.verb, request.vm, {name: value for name, value in options.items() if value}


@pytest.mark.parametrize(
    ("command", "verb", "vm", "options"),
    [
        ("", "list", "", {}),
        ("list", "list", "", {}),
        ("list --json", "list", "", {"json": True}),
        ("whoami", "whoami", "", {}),
        ("help", "help", "", {}),
        ("open vm1", "open", "vm1", {}),
        ("open --json vm1", "open", "vm1", {"json": True}),
        ("open --take-over vm1", "open", "vm1", {"take_over": True}),
        ("open --wait vm1", "open", "vm1", {"wait": True}),
        ("open --keep vm1", "open", "vm1", {"keep": True}),
        ("open --replace 0badbeef vm1", "open", "vm1", {"replace": "0badbeef"}),
        ("open --json --take-over vm1", "open", "vm1", {"json": True, "take_over": True}),
        (
            "open --json --take-over --wait --keep --replace 01234567 vm1",
            "open",
            "vm1",
            {"json": True, "take_over": True, "wait": True, "keep": True, "replace": "01234567"},
        ),
        ("open --replace 89abcdef 89abcdef", "open", "89abcdef", {"replace": "89abcdef"}),
        ("open list", "open", "list", {}),
        ("open a", "open", "a", {}),
        ("open " + "v" * 64, "open", "v" * 64, {}),
        ("open Win-10_book.keeping", "open", "Win-10_book.keeping", {}),
    ],
)
def test_valid_command_is_accepted(
    command: str, verb: str, vm: str, options: dict[str, object]
) -> None:
    assert parsed(command) == (verb, vm, options)


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
        "open --wait",
        "open --wait --wait vm1",
        "open --keep --wait vm1",
        "open --wait --take-over vm1",
        "open --keep",
        "open --keep --keep vm1",
        "open --replace",
        "open --replace vm1",
        "open --replace 0badbeef",
        "open --replace  vm1",
        "open --replace 0badbee vm1",
        "open --replace 0badbeef0 vm1",
        "open --replace 0BADBEEF vm1",
        "open --replace ../../xx vm1",
        "open --replace=0badbeef vm1",
        "open --replace 0badbeef --keep vm1",
        "open --replace 0badbeef --replace 0badbeef vm1",
        "open --replace 0badbeef\nvm1",
        "list --wait",
        "list --keep",
        "list --replace 0badbeef",
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
    st.sets(st.sampled_from(["json", "take_over", "wait", "keep"])),
    st.just("") | st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
)
def test_every_valid_open_command_is_accepted(flags: set[str], replace: str, vm: str) -> None:
    order = ("json", "take_over", "wait", "keep")
    words = ["open", *(f"--{name.replace('_', '-')}" for name in order if name in flags)]
    words += ["--replace", replace] if replace else []
    expected = dict.fromkeys(flags, True) | ({"replace": replace} if replace else {})
    assert parsed(" ".join([*words, vm])) == ("open", vm, expected)


@pytest.mark.parametrize("command", ["open", "open ", "open --json --keep", "open --wait "])
def test_open_without_a_vm_is_told_what_it_lacks(command: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(command)
    assert refused.value.reason == "open needs a VM's name"
