"""The log of ssh: shown at once, and kept to explain why ssh ended.

It is a FIFO that `ssh -E` writes to. ssh's stderr stays the terminal, since ssh asks there for the
touch of a hardware key. So messages of ssh and text from the server (its banner) are kept apart.
"""

import itertools
import os
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from spice_connect.errors import LostError, UnavailableError

CHUNK = 1 << 16
LAST_WORDS = 1 << 13  # bytes kept; the warning of a changed host key has 1 KB

#: A message from a part of ssh that LogVerbose names (log.c, sshlogv): it starts with its place in
#: the source and the process, "(pid=1)" or "(bin=ssh, uid=0, pid=1)". Some are errors.
MARKED = re.compile(rb"(debug\d: )?[\w.-]+\.c:\w+\(\):\d+ \([\w=, .-]*\): (.*\n)")

#: As the built-in ssh names a cause, in a line of its log that is not for the person.
Name = Literal[
    "changed-key",
    "unknown-key",
    "no-such-host",
    "refused",
    "unreachable",
    "denied",
    "too-old",
    "configuration",
    "forwarding-refused",
    "unknown",
]
NAMING = b"cause: "
NAMED = re.compile(r"^cause: ([a-z-]+)\r?$", re.MULTILINE)

_numbers = itertools.count(1)


class SshLog:
    def __init__(
        self, directory: str, show: Callable[[bytes], None], hear: Callable[[str], bool]
    ) -> None:
        """`directory`: the private one; the FIFO is removed with it.

        `show` is called with each line for the user. `hear` is called with each message that
        LogVerbose asked for, and returns whether it was a sign of progress. Signs of progress and
        debug messages are not shown.
        """
        self.path = f"{directory}/log-{next(_numbers)}"
        os.mkfifo(self.path, 0o600)
        # Opened for writing too, so that it never ends and ssh can always open it.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._show, self._hear = show, hear
        self._said = self._open = b""

    def fileno(self) -> int:
        return self._fd

    def listen(self) -> None:
        """Read what is there; do not wait."""
        while chunk := self._read():
            *lines, self._open = (self._open + chunk).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
            self._open = self._open[-LAST_WORDS:]

    def text(self) -> str:
        """The last lines that were shown."""
        return self._said.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.unlink(self.path)

    def _take(self, line: bytes) -> None:
        if marked := MARKED.fullmatch(line):
            debugging, line = marked.groups()
            if self._hear(line.decode(errors="replace").rstrip()) or debugging:
                return
        if not line.startswith(NAMING):
            self._show(line)
        self._said = (self._said + line)[-LAST_WORDS:]

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""


class Cause(NamedTuple):
    name: Name
    words: str  # what OpenSSH says: a regular expression
    reason: str
    hint: str
    #: Whether another try may help.
    passing: bool = True
    #: Whether the login might have worked if ssh had been allowed to ask the user.
    personal: bool = False


#: The first match counts. ssh's messages are always in English.
CAUSES = (
    Cause(
        "changed-key",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} has changed",
        "somebody may be listening in: continue only if the host's admin confirms the new key",
        passing=False,
    ),
    Cause(
        "unknown-key",
        "Host key verification failed",
        "the host key of {host} is not known here, and was not accepted",
        "ask its admin for the fingerprint, log in by ssh once, and compare the two",
        passing=False,
        personal=True,
    ),
    Cause(
        "no-such-host",
        "Could not resolve hostname",
        "no host called {host} was found",
        "check the name, and the network this machine is in (a VPN?)",
    ),
    Cause(
        "refused",
        "Connection refused",
        "{host} refused the connection",
        "does sshd run there, and on the port of your ssh configuration? its admin knows",
    ),
    Cause(
        "unreachable",
        "No route to host|[Nn]etwork is unreachable|[Tt]imed out",
        "{host} cannot be reached",
        "check the network this machine is in (a VPN?), and whether the host is up",
    ),
    Cause(
        "denied",
        r"Permission denied \(|Too many authentication failures",
        "{host} did not let you log in",
        "does it know your user name, and your key or password? its admin does",
        personal=True,
    ),
    Cause(
        "too-old",
        "no matching .* found|Protocol major versions differ",
        "the sshd of {host} is too old for this ssh",
        "its admin can upgrade it",
        passing=False,
    ),
    Cause(
        "configuration",
        r"(?!)",  # only the built-in ssh says so
        "the built-in ssh cannot do what your ssh configuration asks for",
        "change what it names above, or install OpenSSH's client",
        passing=False,
    ),
)
UNKNOWN = Cause("unknown", "", "ssh could not reach {host} or log in there", "")

#: sshd gives the same reason for "not allowed" and "nobody listens".
FORWARDING_REFUSED = re.compile(
    r"channel \d+: open failed: |^cause: forwarding-refused\r?$", re.MULTILINE
)


def explain(host: str, said: str) -> UnavailableError:
    """Why ssh ended with its own exit status 255, by its log `said`.

    A LostError if another try may help.
    """
    cause = _cause(said)
    kind = LostError if cause.passing else UnavailableError
    return kind(cause.reason.format(host=host), cause.hint)


def lacked_prompt(said: str) -> bool:
    """Whether the login might have worked if ssh had been allowed to ask the user."""
    return _cause(said).personal


def _cause(said: str) -> Cause:
    if named := NAMED.search(said):
        return next((cause for cause in CAUSES if cause.name == named[1]), UNKNOWN)
    return next((cause for cause in CAUSES if re.search(cause.words, said)), UNKNOWN)


def forwarding_refused(host: str, said: str) -> UnavailableError | None:
    """The failure if ssh has said that a forwarding was refused, else None."""
    if not FORWARDING_REFUSED.search(said):
        return None
    return UnavailableError(
        f"{host} does not forward to its spicetunnel",
        "the sshd there must allow it: `spicetunnel sshd-config` prints how; its admin knows",
    )
