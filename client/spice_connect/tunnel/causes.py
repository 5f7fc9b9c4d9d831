"""Why ssh did not get in: what its words mean.

ssh's messages are always in English. They come from its log, whatever LogLevel the person has set
(ssh.py); those of a jump host's ssh come from its stderr, and are the person's own to silence.
"""

import re
from typing import Literal, NamedTuple

from spice_connect.errors import LostError, UnavailableError
from spice_connect.tunnel.way import parse as parse_way

#: As the built-in ssh names a cause, in a line of its log: "cause: NAME", then " at HOP" for a jump
#: host.
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
NAMED = re.compile(r"^cause: (?P<name>[a-z-]+)(?: at (?P<hop>\S+))?\r?$", re.MULTILINE)
MAX_WORDS = 200  # characters told of somebody else's words


class Cause(NamedTuple):
    """In `reason` and `hint`, {place} is the host, {file} and {line} what `words` found."""

    name: str
    words: str  # what OpenSSH says: a regular expression
    reason: str
    hint: str
    #: Whether another try may help.
    passing: bool = True
    #: Whether the login might have worked if ssh had been allowed to ask the user.
    personal: bool = False


#: Faults of this machine, before ssh has tried to connect. The first match counts.
LOCAL_CAUSES = (
    Cause(
        "writable-configuration",
        r"Bad owner or permissions on (?P<file>\S+)",
        "ssh does not use {file}: others can write to it",
        "chmod 600 {file}",
        passing=False,
    ),
    Cause(
        "configuration",
        # Of options that are merely deprecated or unsupported, ssh only warns.
        r"(?m)^(?P<line>.*\bline \d+\b(?!: (?:Deprecated|Unsupported)).*?)\r?$"
        r"[\s\S]*^.*terminating, \d+ bad configuration options",
        "ssh does not take your configuration: {line}",
        "mend what it names; ssh {host} says the same",
        passing=False,
    ),
    Cause(
        "configuration",
        r"(?m)^(?P<line>Can't open user config file .*|Bad \w+ forwarding .*|percent_expand: .*"
        r"|hostname contains invalid characters)\r?$",
        "ssh does not take your configuration: {line}",
        "mend what it names; ssh {host} says the same",
        passing=False,
    ),
)

#: The same on ssh's stderr, before it has opened its log.
USAGE = Cause(
    "usage",
    r"(?m)^usage: ssh ",
    "ssh does not take this command line",
    "is '{host}' a host, as ssh takes it? spice-connect -v shows the whole line",
    passing=False,
)

#: The first match counts.
CAUSES = (
    Cause(
        "changed-key",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {place} has changed",
        "somebody may be listening in: continue only if the host's admin confirms the new key",
        passing=False,
    ),
    Cause(
        "unknown-key",
        "Host key verification failed",
        "the host key of {place} is not known here, and was not accepted",
        "ask its admin for the fingerprint, log in by ssh once, and compare the two",
        passing=False,
        personal=True,
    ),
    Cause(
        "no-such-host",
        "Could not resolve hostname",
        "no host called {place} was found",
        "check the name, and the network this machine is in (a VPN?)",
    ),
    Cause(
        "refused",
        "Connection refused",
        "{place} refused the connection",
        "does sshd run there, and on the port of your ssh configuration? its admin knows",
    ),
    Cause(
        "unreachable",
        "No route to host|[Nn]etwork is unreachable|[Tt]imed out",
        "{place} cannot be reached",
        "check the network this machine is in (a VPN?), and whether the host is up",
    ),
    Cause(
        "readable-key",
        r"Permissions \d+ for '(?P<file>[^'\n]+)' are too open",
        "ssh does not use {file}: others can read it",
        "chmod 600 {file}",
        passing=False,
    ),
    Cause(
        "denied",
        r"Permission denied \(|Too many authentication failures",
        "{place} did not let you log in",
        "does it know your user name, and your key or password? its admin does",
        personal=True,
    ),
    Cause(
        "too-old",
        "no matching .* found|Protocol major versions differ",
        "the sshd of {place} is too old for this ssh",
        "its admin can upgrade it",
        passing=False,
    ),
    Cause(
        "no-ssh",
        "banner exchange: .*invalid format|banner line contains invalid characters",
        "what answers at {place} is no sshd",
        "check the port in your ssh configuration",
        passing=False,
    ),
    Cause(
        "hung-up",
        r"(?m)^(kex_exchange_identification: )?"
        r"(Connection closed by remote host|read: Connection reset)",
        "{place} hung up at once",
        "its sshd may be overloaded, or refuse your address; its admin sees why in its log",
    ),
    Cause(
        "ended",
        r"Connection (?:closed|reset) by \S+ port \d+",
        "{place} ended the connection during the login",
        "did the login take too long, or is your account locked? its admin sees why in sshd's log",
    ),
    Cause(
        "configuration",
        r"(?!)",  # only the built-in ssh says so
        "the built-in ssh cannot do what your ssh configuration asks for",
        "change what it names above, or install OpenSSH's client",
        passing=False,
    ),
)
#: sshd says so in its banner, which comes by stderr, and then ends the connection.
EXPIRED = Cause(
    "expired",
    "[Aa]ccount has expired",
    "your account on {place} has expired",
    "its admin can prolong it",
    passing=False,
)
UNKNOWN = Cause(
    "unknown",
    "",
    "ssh could not reach {place} or log in there",
    "ssh {host} may tell more, and spice-connect -vv shows each step of ssh",
)
CUT = Cause(
    "cut",
    "",
    "{place} let you log in, and then ended the connection",
    "its admin sees why in the log of its sshd",
)

#: ssh's words when a ProxyCommand, which a jump host is too, ends before the server has spoken.
WAY_ENDED = re.compile(r"Connection (?:closed|reset) by UNKNOWN port 65535")


class Attempt(NamedTuple):
    """A login that came to nothing. `log`, `stderr`: ssh's words. `way`: its ProxyCommand."""

    host: str
    log: str
    stderr: str = ""
    way: str = ""
    is_logged_in: bool = False


def explain(attempt: Attempt) -> UnavailableError:
    """Why ssh ended with its own exit status 255. A LostError if another try may help."""
    cause, place, found = _cause(attempt)
    if cause is None:
        return _way_failed(attempt)
    kind = LostError if cause.passing else UnavailableError
    names = {"place": place, "host": attempt.host, **found}
    # With `replace`: a name, and ssh's words, may have braces in them.
    return kind(fill(cause.reason, names), fill(cause.hint, names))


def lacked_prompt(attempt: Attempt) -> bool:
    """Whether the login might have worked if ssh had been allowed to ask the user."""
    cause, _, _ = _cause(attempt)
    return cause is not None and cause.personal


def _cause(attempt: Attempt) -> tuple[Cause | None, str, dict[str, str]]:
    """The cause, the place where it is, and what its words name. No cause: it is on the way."""
    host = attempt.host
    if named := NAMED.search(attempt.log):
        known = (cause for cause in CAUSES if cause.name == named["name"])
        return next(known, UNKNOWN), _as_jump(named["hop"], host) if named["hop"] else host, {}
    if WAY_ENDED.search(attempt.log) and attempt.way:
        hops = parse_way(attempt.way).hops
        # With several, whose words these are is not known.
        cause, found = _first(CAUSES, attempt.stderr) if len(hops) == 1 else (None, {})
        return cause, _as_jump(hops[0], host) if cause else host, found
    cause, found = _at_host(attempt)
    return cause, host, found


def _at_host(attempt: Attempt) -> tuple[Cause, dict[str, str]]:
    if attempt.is_logged_in:
        return CUT, {}
    if not attempt.log and re.search(USAGE.words, attempt.stderr):
        return USAGE, {}
    cause, found = _first((*LOCAL_CAUSES, *CAUSES), attempt.log)
    if cause and cause.name in {"ended", "denied"} and re.search(EXPIRED.words, attempt.stderr):
        return EXPIRED, {}
    return cause or UNKNOWN, found


def _first(causes: tuple[Cause, ...], said: str) -> tuple[Cause | None, dict[str, str]]:
    for cause in causes:
        if found := re.search(cause.words, said):
            return cause, {name: shorten(text) for name, text in found.groupdict().items()}
    return None, {}


def fill(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda place: names.get(place[1], ""), text)


def _as_jump(hop: str, host: str) -> str:
    return f"{hop}, the jump host on the way to {host},"


def _way_failed(attempt: Attempt) -> UnavailableError:
    hops, ssh = parse_way(attempt.way)
    host = attempt.host
    if not hops:
        reason = f"the ProxyCommand on the way to {host} ended before the host answered"
        return LostError(reason + saying(attempt.stderr), f"what does `ssh {host}` say?")
    who = "the jump host" if len(hops) == 1 else "the jump hosts"
    reason = f"{who} {' and '.join(hops)}, on the way to {host}, did not let ssh through"
    return LostError(reason, f"what does `{ssh}` say?")


def saying(said: str) -> str:
    """The last line of somebody else's words, marked as theirs."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"; it says: {shorten(lines[-1])}" if lines else ""


def shorten(words: str) -> str:
    words = words.strip()
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "..."
