"""Why ssh failed, by its own words: one plain sentence for each cause, and what to do."""

import re
from typing import Literal, NamedTuple

from spice_connect.errors import LostError, UnavailableError

#: As the built-in ssh names a cause, in a line `cause: NAME` of its log; see NAMED.
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
NAMED = re.compile(r"^cause: ([a-z-]+)\r?$", re.MULTILINE)


class Cause(NamedTuple):
    name: Name
    words: str  # a regular expression: how OpenSSH says it
    reason: str
    hint: str
    #: Whether trying again, unchanged, may help.
    passing: bool = True
    #: Whether an answer of the person's might have helped, where ssh was not to ask.
    personal: bool = False


#: The first that fits counts. ssh's messages are always in English: it sets no locale for them.
CAUSES = (
    Cause(
        "changed-key",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} has changed",
        "somebody may be listening in: go on only when the host's admin has confirmed the new key",
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

#: Whatever the reason: sshd has the same one for "not allowed" and "nobody there".
FORWARDING_REFUSED = re.compile(
    r"channel \d+: open failed: |^cause: forwarding-refused\r?$", re.MULTILINE
)


def explain(host: str, said: str) -> UnavailableError:
    """After ssh's exit status 255, which is its own. A LostError where another try may help."""
    cause = _cause(said)
    kind = LostError if cause.passing else UnavailableError
    return kind(cause.reason.format(host=host), cause.hint)


def lacked_prompt(said: str) -> bool:
    return _cause(said).personal


def _cause(said: str) -> Cause:
    if named := NAMED.search(said):
        return next((cause for cause in CAUSES if cause.name == named[1]), UNKNOWN)
    return next((cause for cause in CAUSES if re.search(cause.words, said)), UNKNOWN)


def forwarding_refused(host: str, said: str) -> UnavailableError | None:
    if not FORWARDING_REFUSED.search(said):
        return None
    return UnavailableError(
        f"{host} does not forward to its spicetunnel",
        "the sshd there must allow it: `spicetunnel sshd-config` prints how; its admin knows",
    )
