"""Whether a host is the one it was: known_hosts, and the question about a host that is new."""

import base64
import contextlib
import hashlib
import hmac
import os

import asyncssh

from spice_connect.tunnel.builtin.dialog import Dialog
from spice_connect.tunnel.builtin.settings import Settings

USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
SSH_PORT = 22
KINDS = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA"}
QUESTION = "Are you sure you want to continue connecting (yes/no/[fingerprint])? "

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed."""


class KnownHost:
    """One host, by the name under which its keys are kept."""

    def __init__(self, settings: Settings, host: str, port: int, dialog: Dialog) -> None:
        self._settings, self._dialog = settings, dialog
        plain = host.lower()
        self.name = plain if port == SSH_PORT else f"[{plain}]:{port}"
        self.name = settings.text("HostKeyAlias", self.name)
        self._files = settings.paths("UserKnownHostsFile", *USER_FILES)
        known = _read(self._files + settings.paths("GlobalKnownHostsFile", *GLOBAL_FILES))
        # By its name alone: a key that is known for an address says nothing about the name.
        self.keys, self.authorities, self.revoked, *_ = known.match(self.name, "", None)

    def trusted(self) -> tuple[object, object, object]:
        """As asyncssh wants them; what it finds in there is never asked about."""
        return self.keys, self.authorities, self.revoked

    def accept(self, key: asyncssh.SSHKey) -> bool:
        """Whether to go on with a key that is not among the known ones."""
        if self.keys:
            self.tell_change(key)
            return False
        strict = self._settings.text("StrictHostKeyChecking", "ask").lower()
        if strict in ("yes", "true"):
            self._dialog.say(
                f"No {_kind(key)} host key is known for {self.name} and you have requested "
                "strict checking."
            )
            return False
        if strict == "ask" and not self._asked(key):
            return False
        self._remember(key)
        return True

    def tell_change(self, key: asyncssh.SSHKey | None = None) -> None:
        """Whatever StrictHostKeyChecking says: a key that has changed is never talked away."""
        self._dialog.say(CHANGED)
        if key:
            self._dialog.say(
                f"The fingerprint for the {_kind(key)} key sent by the remote host is\n"
                f"{key.get_fingerprint()}."
            )
        self._dialog.say(
            f"Host key for {self.name} has changed and you have requested strict checking."
        )

    def _asked(self, key: asyncssh.SSHKey) -> bool:
        fingerprint = key.get_fingerprint()
        question = (
            f"The authenticity of host '{self.name}' can't be established.\n"
            f"{_kind(key)} key fingerprint is {fingerprint}.\n{QUESTION}"
        )
        while answer := self._dialog.ask(question, echo=True):
            if answer.strip().lower() == "no":
                return False
            if answer.strip().lower() == "yes" or answer.strip() == fingerprint:
                return True
            question = "Please type 'yes', 'no' or the fingerprint: "
        return False

    def _remember(self, key: asyncssh.SSHKey) -> None:
        if not self._files:
            return
        hashed = self._settings.get("HashKnownHosts") is True
        name = _hashed(self.name) if hashed else self.name
        line = f"{name} {key.export_public_key().decode().strip()}\n"
        try:
            _append(self._files[0], line)
        except OSError as error:
            said = f"Failed to add the host to the list of known hosts ({self._files[0]}): "
            self._dialog.say(said + str(error.strerror))
            return
        kind = _kind(key)
        self._dialog.say(
            f"Warning: Permanently added '{self.name}' ({kind}) to the list of known hosts."
        )


def _read(files: list[str]) -> asyncssh.SSHKnownHosts:
    known = asyncssh.SSHKnownHosts()
    for file in files:
        with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # ssh, too, passes over a line that is none
                    known.load(line)
    return known


def _append(file: str, line: str) -> None:
    os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(fd, "rb+", buffering=0) as stream:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = "\n" + line
        stream.write(line.encode())


def _hashed(name: str) -> str:
    """As ssh-keygen -H: who reads the file does not learn where its person goes."""
    salt = os.urandom(20)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _kind(key: asyncssh.SSHKey) -> str:
    name = key.get_algorithm()
    return KINDS.get(name, "ECDSA" if name.startswith("ecdsa-") else name)
