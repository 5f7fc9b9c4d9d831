"""Any bytes as a client's command: they follow the grammar, or get a printable refusal."""

import string
import sys

import atheris

with atheris.instrument_imports(include=["spicetunnel"]):
    from spicetunnel.common.errors import UsageError
    from spicetunnel.gate.__main__ import options_from
    from spicetunnel.gate.request import parse

ALLOWED = set(string.ascii_letters + string.digits + "._- ")


def one_input(data: bytes) -> None:
    command = data.decode("utf-8", "surrogateescape")  # as os.environ shows it
    try:
        parse(command)
        assert set(command) <= ALLOWED
    except UsageError as refusal:
        _require_plain(refusal.reason + refusal.hint)
    try:
        _, name = options_from(["-c", command], forced=False)
        assert name == "", "a client's own command may name nobody"
    except UsageError:
        pass


def _require_plain(said: str) -> None:
    assert said.isascii()
    assert said.isprintable()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
