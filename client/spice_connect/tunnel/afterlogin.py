"""Why there is no session though ssh has logged in: no gate, no word, or no tunnel."""

import re
from typing import NamedTuple

from spice_connect.errors import ConfigError, LostError, ProtocolError, UnavailableError
from spice_connect.tunnel.causes import fill, saying


class Stranger(NamedTuple):
    """Another program in the gate's place. `words`: a regular expression for what it says."""

    words: str
    hint: str


NO_GATE = "is spicetunnel set up there, and are you in its group? its admin knows"
#: The first match counts.
STRANGERS = (
    Stranger(
        r"(?i)account is (currently )?not available|nologin|not allowed to log ?in",
        "your account there has no login shell; its admin can give it one",
    ),
    Stranger(
        r"(?i)\brestricted\b",
        "your login shell there is a restricted shell, which starts no gate; its admin can help",
    ),
    Stranger(
        r"(?i)password (change required|has expired|expired)|change your password",
        "your password there has expired: change it on a terminal, by ssh {host}",
    ),
)
#: For exit status 0: a program that was not started for its missing file ends otherwise.
IN_ITS_PLACE = (
    "another program ran in the gate's place: an exec in a start-up file of yours there, or an "
    "earlier ForceCommand? its admin knows"
)


def no_gate(host: str, status: int | None, said: str) -> ProtocolError:
    """The failure if ssh ended with the `status` of a program that is not the gate.

    `said`: the server's last words. The gate never ends without a message, so it did not run: the
    shell found no `open` (127), or another program of this name (Debian has one).
    """
    reason = f"no spicetunnel gate answered on {host} (exit status {status})" + saying(said)
    known = (each.hint for each in STRANGERS if re.search(each.words, said))
    default = IN_ITS_PLACE if status == 0 else NO_GATE
    return ProtocolError(reason, fill(next(known, default), {"host": host}))


def mute(host: str, seconds: float) -> LostError:
    """The failure if the login worked, and the gate then says nothing."""
    return LostError(
        f"{host} let you log in, but its gate said nothing within {seconds:g} s",
        f"does a start-up file of yours there wait for something? try ssh {host} list",
    )


def forwarding_refused(host: str, tunnel: str) -> UnavailableError:
    """Sshd gives the same reason for "not allowed" and "nobody listens". `tunnel`: its path."""
    options = f'port-forwarding,permitopen="[{tunnel}]:*"'
    return UnavailableError(
        f"{host} does not forward to its spicetunnel",
        "its sshd must allow it (`spicetunnel sshd-config` prints how), and if authorized_keys has "
        f"options such as restrict or permitopen before your key, {options} too; its admin knows",
    )


def other_tunnel(place: str, theirs: str, ours: str) -> ConfigError:
    directory = theirs.rpartition("/")[0]
    return ConfigError(
        f"the tunnel of {place} is {theirs}, not {ours}",
        f'--run-dir {directory}, or run-dir = "{directory}" in the configuration',
    )
