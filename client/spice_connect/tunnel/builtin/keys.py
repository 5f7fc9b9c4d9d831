"""The person's keys: the agent's first, then the files', each with its passphrase if it has one."""

import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence

import asyncssh

from spice_connect.tunnel.builtin.dialog import Dialog
from spice_connect.tunnel.builtin.settings import Settings

Certificates = Sequence[asyncssh.SSHCertificate]

FILES = tuple(
    f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "dsa")
)


async def offer(settings: Settings, dialog: Dialog) -> AsyncIterator[Sequence[asyncssh.SSHKeyPair]]:
    """One after another: nobody is asked for a passphrase before the keys without one."""
    files = [file for file in settings.paths("IdentityFile", *FILES) if os.path.isfile(file)]
    seen: set[bytes] = set()
    for pair in await _from_agent(settings, files):
        seen.add(pair.public_data)
        yield [pair]
    certificates = asyncssh.load_certificates(settings.paths("CertificateFile"))
    locked = []
    for file in files:
        loaded = _load(file, None, certificates, dialog)
        if loaded is None:
            locked.append(file)
        elif fresh := [pair for pair in loaded if pair.public_data not in seen]:
            yield fresh
    for file in locked:
        if not seen & set(_public([file])):
            yield _unlocked(settings, file, certificates, dialog)


async def _from_agent(settings: Settings, files: list[str]) -> Sequence[asyncssh.SSHKeyPair]:
    path = settings.get("IdentityAgent", "SSH_AUTH_SOCK")
    if path == "SSH_AUTH_SOCK":
        path = os.environ.get("SSH_AUTH_SOCK")
    wanted = list(_public(files)) if settings.get("IdentitiesOnly") else []
    if not isinstance(path, str) or (settings.get("IdentitiesOnly") and not wanted):
        return []
    try:
        agent = await asyncssh.connect_agent(os.path.expanduser(path))
        return await agent.get_keys(wanted)
    except (OSError, ValueError, asyncssh.Error):
        return []


def _public(files: list[str]) -> Iterator[bytes]:
    """What can be told of these keys without opening them."""
    for file in files:
        try:
            yield asyncssh.read_public_key(f"{file}.pub").public_data
        except (OSError, ValueError):
            pass  # there is none beside it


def _load(
    file: str,
    passphrase: str | None,
    certificates: Certificates,
    dialog: Dialog,
) -> Sequence[asyncssh.SSHKeyPair] | None:
    """None: it needs a passphrase, or another one."""
    info = os.stat(file)
    if info.st_uid == os.getuid() and stat.S_IMODE(info.st_mode) & 0o077:
        dialog.say(f"WARNING: UNPROTECTED PRIVATE KEY FILE!\nBad permissions: ignored: {file}")
        return []
    try:
        return asyncssh.load_keypairs(file, passphrase, certificates)
    except asyncssh.KeyEncryptionError as error:
        if "requires bcrypt" not in str(error):
            return None
        dialog.say(f'Load key "{file}": {error}')
    except (OSError, ValueError) as error:
        if str(error).startswith("Passphrase"):
            return None
        dialog.say(f'Load key "{file}": {error}')
    return []


def _unlocked(
    settings: Settings,
    file: str,
    certificates: Certificates,
    dialog: Dialog,
) -> Sequence[asyncssh.SSHKeyPair]:
    for _ in range(settings.number("NumberOfPasswordPrompts", 3)):
        passphrase = dialog.ask(f"Enter passphrase for key '{file}': ")
        if not passphrase:
            break
        pairs = _load(file, passphrase, certificates, dialog)
        if pairs is not None:
            return pairs
    return []
