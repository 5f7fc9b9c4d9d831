"""The login at one host: is it the right one, and the person's keys, passwords and answers."""

import getpass
import logging
import os
import signal
import subprocess
from asyncio import Timeout
from collections.abc import Sequence
from contextlib import suppress

from asyncssh import SSHClient, SSHKey, match_known_hosts, read_private_key

from spice_connect.signals import ENDING
from spice_connect.tunnel.causes import Name
from spice_connect.ui.terminal import clean

TRIES = 3
OWN_KNOWN_HOSTS = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
GLOBAL_KNOWN_HOSTS = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
QUESTION = "Are you sure you want to continue connecting (yes/no/[fingerprint])? "


class SshError(Exception):
    """No connection. Its text is for the person, its cause and the jump host for causes.py."""

    hop = ""

    def __init__(self, cause: Name, text: str) -> None:
        super().__init__(clean(text))
        self.cause: Name = cause


class Dialog(logging.Handler):
    """What the person is told, in ssh's log, and asked, on their terminal or by SSH_ASKPASS."""

    def __init__(self, log: str, verbosity: int, *, batch: bool) -> None:
        super().__init__()
        self._log, self.batch = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), batch
        logging.basicConfig(handlers=[self], level=("CRITICAL", "INFO", "DEBUG")[min(verbosity, 2)])

    def say(self, text: str) -> None:
        show(self._log, text)

    def emit(self, record: logging.LogRecord) -> None:
        self.say(f"debug1: {self.format(record)}")

    def mark(self, step: str) -> None:
        """A sign of ui/progress.py, in the form that tunnel/sshlog.py tells from what is shown."""
        self.say(f"debug1: builtin.c:mark():1 (pid={os.getpid()}): {step}")

    def ask(self, question: str, *, echo: bool = False) -> str:
        """Empty without an answer."""
        if self.batch:
            return ""
        if os.environ.get("SSH_ASKPASS_REQUIRE") not in ("force", "prefer"):
            with suppress(OSError):  # no terminal
                return _ask_on_terminal(question, echo=echo)
        argv = [os.environ.get("SSH_ASKPASS", "/usr/bin/ssh-askpass"), question]
        with suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(argv, stdin=subprocess.DEVNULL, text=True).rstrip("\n")
        return ""


def show(fd: int, text: str) -> None:
    """Line by line, ended as in a terminal's raw mode."""
    lines = "".join(f"{clean(line)}\r\n" for line in text.splitlines())
    os.write(fd, lines.encode(errors="replace"))


def _ask_on_terminal(question: str, *, echo: bool) -> str:
    with open("/dev/tty", "rb+", buffering=0) as terminal:
        for signum in ENDING:  # as an exception, so that getpass leaves the terminal as it was
            signal.signal(signum, signal.default_int_handler)
        try:
            if not echo:
                return getpass.getpass(question)
            terminal.write(question.encode(errors="replace"))
            return terminal.readline().decode(errors="replace").strip()
        except EOFError:  # Ctrl-D
            return ""
        except KeyboardInterrupt:
            os._exit(os.EX_UNAVAILABLE)
        finally:
            for signum in ENDING:
                signal.signal(signum, signal.SIG_DFL)


class Login(SSHClient):
    """asyncssh calls these as it goes along. They may wait for an answer: nothing else runs yet."""

    patience: Timeout  # the ConnectTimeout, in which the person's own time does not count

    def __init__(
        self, files: object, alias: str | None, dialog: Dialog, *, is_strict: bool
    ) -> None:
        """`files`: as the configuration names them, [] where it does not."""
        named = files if isinstance(files, list) else [os.devnull]  # UserKnownHostsFile none
        self._files = [*map(os.path.expanduser, named or OWN_KNOWN_HOSTS), *GLOBAL_KNOWN_HOSTS]
        self._alias, self._dialog, self._is_strict, self._asked = alias, dialog, is_strict, 0

    def known_hosts(self, host: str, _addr: str, port: int | None) -> tuple[object, ...]:
        """By the name alone: a key that is known for an address says nothing about the name."""
        self._dialog.mark("Remote protocol version 2.0")
        self._host = host
        self._name = self._alias or (f"[{host.lower()}]:{port}" if port else host.lower())
        files = list(filter(os.path.exists, self._files)) or b""
        self._keys, authorities, revoked, *_ = match_known_hosts(files, self._name, "", None)
        return self._keys, authorities, revoked

    def validate_host_public_key(self, _host: str, _addr: str, _port: int, key: SSHKey) -> bool:
        """Whether to go on with a key that is not among the known ones."""
        self.patience.reschedule(None)
        kind = key.get_algorithm().removeprefix("ssh-").partition("-")[0].upper()
        shown = f"{kind} key fingerprint is {key.get_fingerprint()}."
        if self._keys:
            raise SshError("changed-key", f"'{self._name}' has not its known key: {shown}")
        question = f"The authenticity of host '{self._name}' can't be established.\n{shown}\n"
        answer = "" if self._is_strict else self._dialog.ask(question + QUESTION, echo=True)
        if answer not in ("yes", key.get_fingerprint()):
            return False
        os.makedirs(os.path.dirname(self._files[0]), mode=0o700, exist_ok=True)
        with open(self._files[0], "ab") as known:
            known.write(b"\n%s %s" % (self._name.encode(), key.export_public_key()))
        self._dialog.say(f"Permanently added '{self._name}', in plain text, to {self._files[0]}.")
        return True

    def begin_auth(self, username: str) -> None:
        self.patience.reschedule(None)
        self._who = f"{username}@{self._host}"

    def auth_banner_received(self, msg: str, _lang: str) -> None:
        show(2, msg)

    async def passphrase(self, file: str) -> str:
        """Called when the host takes this key. ValueError: asyncssh goes on with the next one."""
        with open(file, "rb") as key:
            if b"OPENSSH" not in key.read(64) and not os.path.exists(f"{file}.pub"):
                raise SshError("configuration", f"not in the built-in ssh: {file} without a .pub")
        for _ in range(TRIES):
            answer = self._dialog.ask(f"Enter passphrase for key '{file}': ")
            with suppress(ValueError):
                read_private_key(file, answer)
                return answer
        raise ValueError("no passphrase")

    def password_auth_requested(self) -> str | None:
        return self._dialog.ask(f"{self._who}'s password: ") if self._begin() else None

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._begin() else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, _lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str]:
        """`prompts`: the server's questions, each after who asks, and whether to show answers."""
        self._dialog.mark("Next authentication method: keyboard-interactive")
        show(2, f"{name}\n{instructions}".strip())
        return [self._dialog.ask(f"({self._who}) {clean(q)}", echo=echo) for q, echo in prompts]

    def _begin(self) -> bool:
        """Whether the person is asked, once more."""
        self._asked += 1
        if self._asked == 1:
            self._dialog.mark("Authentications that can continue: by the person's answers")
        elif self._asked <= TRIES:
            self._dialog.say("Permission denied, please try again.")
        return self._asked <= TRIES and not self._dialog.batch
