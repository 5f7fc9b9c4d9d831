"""The files of people's public keys, keys.d/NAME.pub: what counts in them, and what does not.

A line is read as `ssh-keygen -l` reads it: blanks and comments are passed over, the key may be
indented, and its line may end as on Windows. Options before a key are not taken, as a person's
options could undo ours. `keys` uses this at each login, so: light.
"""

import base64
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import NamedTuple

from spicetunnel.common.errors import os_reason
from spicetunnel.common.names import is_person_name
from spicetunnel.policy.mapfile import cure, read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable, quote

KEYS_DIRECTORY = "/etc/spicetunnel/keys.d"

_SUFFIX = ".pub"
_TYPE = re.compile(r"(?:ssh-|ecdsa-sha2-|sk-ssh-|sk-ecdsa-sha2-)[a-z0-9@.-]+")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

#: How the first line of a key in another encoding begins: what it is, and how to get the right one.
#: In a hint, {} is the file.
_ENCODINGS = {
    "---- BEGIN SSH2 PUBLIC KEY ----": (
        "in RFC 4716's form, not in OpenSSH's",
        "'ssh-keygen -i -f {}' prints the key",
    ),
    "-----BEGIN PUBLIC KEY-----": (
        "in PKCS #8's form, not in OpenSSH's",
        "'ssh-keygen -i -m PKCS8 -f {}' prints the key",
    ),
    "-----BEGIN RSA PUBLIC KEY-----": (
        "in PEM's form, not in OpenSSH's",
        "'ssh-keygen -i -m PEM -f {}' prints the key",
    ),
    "-----BEGIN": ("a private key", "only the .pub file belongs here; have a new key made"),
    "PuTTY-User-Key-File": (
        "a private key of PuTTY's",
        "PuTTYgen shows the line that belongs here; have a new key made",
    ),
}


class Key(NamedTuple):
    """`key` is in base64, as sshd's %k has it."""

    type: str
    key: str


class Person(NamedTuple):
    """One file: whose it is, their keys, and what is wrong in it."""

    name: str
    keys: list[Key]
    problems: list[Problem]


def people_of(directory: str) -> Iterator[Person]:
    """Everybody with a file NAME.pub in the directory, sorted by name."""
    names, problems = _names(directory)
    if problems:
        yield Person("", [], problems)
    for name in names:
        if name.endswith(_SUFFIX):
            yield _person(os.path.join(directory, name), name.removesuffix(_SUFFIX))


def others_in(directory: str) -> list[Problem]:
    """A warning of each file that nobody's keys are read from."""
    names, _ = _names(directory)
    message, hint = (
        "is not read: its name does not end in .pub",
        "rename it to NAME.pub, or remove it",
    )
    others = (name for name in names if not name.endswith(_SUFFIX))
    return [
        Problem(printable(os.path.join(directory, each)), 0, 0, message, hint) for each in others
    ]


def _names(directory: str) -> tuple[list[str], list[Problem]]:
    """The names in it, but those that begin with a dot. A directory that is missing has none."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith(".")), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        words = f"cannot be read: {os_reason(error)}"
        return [], [Problem(printable(directory), 0, 0, words, cure(error, directory))]


def _person(file: str, name: str) -> Person:
    if not is_person_name(name):
        message = f"{quote(name)} stands in a command that a login shell reads"
        hint = "a name here has letters, digits, '.', '_', '@' and '-'"
        return Person(name, [], [Problem(printable(file), 0, 0, message, hint)])
    try:
        data = read_trusted(file)
    except MapError as error:
        return Person(name, [], error.problems)
    return Person(name, *keys_in(data, file))


def keys_in(data: bytes, file: str) -> tuple[list[Key], list[Problem]]:
    """The keys in a file's bytes, and what is not one; `file` is its name in problems."""
    if data.startswith(_UTF_16):
        hint = f"'iconv -f UTF-16 -t UTF-8 {shlex.quote(file)}' prints it as it should be"
        return [], [Problem(printable(file), 0, 0, "is UTF-16 text", printable(hint))]
    keys: list[Key] = []
    problems: list[Problem] = []
    for number, line in _entries(data.decode("utf-8-sig", "replace").split("\n")):
        found = _read(line, file)
        if isinstance(found, Key):
            keys.append(found)
        else:
            message, hint = found
            problems.append(Problem(printable(file), number, 0, message, printable(hint)))
    return keys, problems


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each line that should be a key; of a key in another encoding, its first one."""
    inside = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if inside:
            inside = not text.startswith(("---- END", "-----END"))
        elif text and not text.startswith("#"):
            yield number, text
            inside = text.startswith(("---- BEGIN", "-----BEGIN"))
            if text.startswith("PuTTY"):
                return


def _read(line: str, file: str) -> Key | tuple[str, str]:
    """The key; or what the line is instead, and a hint."""
    for begin, (what, hint) in _ENCODINGS.items():
        if line.startswith(begin):
            return f"is {what}", hint.format(shlex.quote(file))
    kind, *rest = line.split(maxsplit=2)
    if _TYPE.fullmatch(kind):
        return _key(kind, rest[0] if rest else "")
    if any(_TYPE.fullmatch(word) for word in line.split()):
        hint = "remove them; 'from:' and 'ends:' of a grant say from where and until when"
        return "has options before the key, where only ours count", hint
    return "is not a public key", f"'ssh-keygen -l -f {shlex.quote(file)}' shows the keys in a file"


def _key(kind: str, text: str) -> Key | tuple[str, str]:
    if "-cert-v" in kind:
        return (
            "is a certificate, which needs no file",
            "sshd's TrustedUserCAKeys names its authority",
        )
    try:
        blob = base64.b64decode(text, validate=True)
        is_whole = strings(blob)[0] == kind.encode()
    except (ValueError, IndexError):
        is_whole = False
    if not is_whole:
        return (
            "is a damaged key",
            "a key is one line, as in the person's own .pub file: copy it again",
        )
    return Key(kind, base64.b64encode(blob).decode())


def strings(packed: bytes) -> list[bytes]:
    """The strings that make up a public key's bytes (RFC 4251, section 5). Raises ValueError."""
    data, found = BytesIO(packed), list[bytes]()
    while data.tell() < len(packed):
        found.append(take_string(data))
    return found


def take_string(data: BytesIO) -> bytes:
    return take(data, int.from_bytes(take(data, 4)))


def take(data: BytesIO, size: int) -> bytes:
    """Raises ValueError if there is less."""
    taken = data.read(size)
    if len(taken) != size:
        raise ValueError("a key or certificate that ends too early")
    return taken
