"""A VM's SPICE password, in the file that the map names."""

from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable

MAX_BYTES = 60  # spice-server's own limit, SPICE_MAX_PASSWORD_LENGTH


def read_password(path: str) -> str:
    """The password in the file at `path`. Raises MapError, whose text holds nothing of the file."""
    line = read_trusted(path, secret=True).removesuffix(b"\n")
    if not 1 <= len(line) <= MAX_BYTES:
        raise _wrong(path, f"must hold 1 to {MAX_BYTES} bytes on one line")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise _wrong(path, "must hold one line of printable text")
    return text


def _wrong(path: str, words: str) -> MapError:
    hint = "write the password that QEMU asks for, and nothing else"
    return MapError([Problem(printable(path), 0, 0, words, hint)])
