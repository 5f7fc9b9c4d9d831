"""`spicetunnel keys` and `principals`: tell sshd who comes to a shared account.

sshd runs them as AuthorizedKeysCommand and AuthorizedPrincipalsCommand (sshd_config(5)); sshd(8)
has the format of the lines. Every line forces the gate and names the person, so no key of the
shared account can run anything else, or speak for somebody else.
"""

import base64
import os
from io import BytesIO

import click

from spicetunnel.admin.keyfiles import KEYS_DIRECTORY, people_of, strings, take, take_string
from spicetunnel.admin.terminal import show_problems
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.names import is_person_name
from spicetunnel.common.protocol import RUN_DIR

GATE = "/usr/bin/spicetunnel-gate"

#: How many strings make up the public key, by the certificate's type.
_KEY_STRINGS = {
    b"ssh-rsa-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp384-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
    b"ssh-ed25519-cert-v01@openssh.com": 1,
    b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": 3,
    b"sk-ssh-ed25519-cert-v01@openssh.com": 2,
}
_USER = 1  # SSH_CERT_TYPE_USER
_MAX_PRINCIPALS = 256  # OpenSSH's own limit


class _Forced:
    """Makes the options of a line. `sshd-config` has checked `gate` and `run_dir`."""

    def __init__(self, gate: str, run_dir: str) -> None:
        self._gate = gate if run_dir == RUN_DIR else f"{gate} --run-dir {run_dir}"

    def options(self, name: str) -> str:
        return f'restrict,port-forwarding,command="exec {self._gate} --as {name}"'


@click.command()
@click.option(
    "--dir", "directory", default=KEYS_DIRECTORY, show_default=True, help="NAME.pub files."
)
@click.option("--gate", default=GATE, show_default=True, help="The gate.")
@click.option("--run-dir", default=RUN_DIR, show_default=True, help="The broker's directory.")
@click.argument("offered", nargs=-1, metavar="[TYPE KEY]")
def keys(directory: str, gate: str, run_dir: str, offered: tuple[str, ...]) -> None:
    """Print authorized_keys lines for a shared account, one for each key in NAME.pub files.

    sshd runs it as AuthorizedKeysCommand. With TYPE and KEY (sshd's %t and %k), only the lines of
    that key are printed.
    """
    forced = _Forced(gate, run_dir)
    for person in people_of(directory):
        show_problems(person.problems)  # everything else still counts
        for kind, key in person.keys:
            if not offered or (kind, key) == offered:
                click.echo(f"{forced.options(person.name)} {kind} {key} {person.name}")


class _NotACertificateError(SpicetunnelError):
    """The argument is not a user's certificate in base64."""

    exit_code = os.EX_DATAERR


@click.command()
@click.option("--gate", default=GATE, show_default=True, help="The gate.")
@click.option("--run-dir", default=RUN_DIR, show_default=True, help="The broker's directory.")
@click.argument("certificate")
def principals(gate: str, run_dir: str, certificate: str) -> None:
    """Print authorized_principals lines for a shared account, one for each name in CERTIFICATE.

    sshd runs it as AuthorizedPrincipalsCommand, with a certificate in base64 (sshd's %k) that a
    trusted authority has signed. The map is not read: the broker decides what the person may use.
    """
    forced = _Forced(gate, run_dir)
    try:
        names = principals_of(base64.b64decode(certificate, validate=True))
    except ValueError:
        hint = "sshd passes one with %k; 'ssh-keygen -L -f FILE' shows what is in it"
        raise _NotACertificateError("this is not a user's certificate in base64", hint) from None
    for name in filter(is_person_name, names):
        click.echo(f"{forced.options(name)} {name}")


def principals_of(certificate: bytes) -> list[str]:
    """The principals of a user's OpenSSH certificate (PROTOCOL.certkeys). Any text may be a name.

    Only as much is checked as finding the names needs: before it asks, sshd has checked the whole
    certificate and its authority, and it accepts only names that it has found there itself.

    Raises ValueError for bytes that are not a user's certificate.
    """
    data = BytesIO(certificate)
    key_strings = _KEY_STRINGS.get(take_string(data))
    if key_strings is None:
        raise ValueError("not a certificate of a known type")
    for _ in range(1 + key_strings):  # the nonce, the key
        take_string(data)
    take(data, 8)  # the serial number
    if int.from_bytes(take(data, 4)) != _USER:
        raise ValueError("not a user's certificate")
    take_string(data)  # the key's id
    names = strings(take_string(data))
    if len(names) > _MAX_PRINCIPALS:
        raise ValueError(f"a certificate with more than {_MAX_PRINCIPALS} principals")
    return [name.decode("utf-8", "replace") for name in names]
