"""The person at one host's door: their keys, passwords and answers."""

import sys
from collections.abc import Callable, Sequence

import asyncssh

from spice_connect.tunnel.builtin import keys
from spice_connect.tunnel.builtin.dialog import Dialog
from spice_connect.tunnel.builtin.knownhost import KnownHost
from spice_connect.tunnel.builtin.log import show
from spice_connect.tunnel.builtin.settings import Settings
from spice_connect.ui.terminal import clean

UNVERIFIED = "Host key verification failed."

#: asyncssh's own type of a challenge: each question, and whether its answer may be seen.
Questions = Sequence[tuple[str, bool]]


class Login(asyncssh.SSHClient):
    """asyncssh calls these as it goes along. They may wait for an answer: nothing else runs yet."""

    #: Told of the connection as soon as there is one.
    on_connection: Callable[[asyncssh.SSHClientConnection], None]

    def __init__(self, who: str, known: KnownHost, settings: Settings, dialog: Dialog) -> None:
        self.known = known
        self._who, self._dialog = who, dialog
        self._keys = keys.offer(settings, dialog)
        tries = 0 if dialog.batch else settings.number("NumberOfPasswordPrompts", 3)
        self._passwords = self._challenges = tries
        self._asked = False
        self._methods: list[str] = []

    def explain(self, error: asyncssh.DisconnectError, target: str) -> str:
        """Why we did not get in, in OpenSSH's words."""
        said = error.reason
        match error:
            case asyncssh.HostKeyNotVerifiable():
                return f"{said}\n{UNVERIFIED}"
            case asyncssh.KeyExchangeFailed():
                return self._explain_disagreement(said, target)
            case asyncssh.ProtocolNotSupported():
                return f"Protocol major versions differ: {said}"
            case asyncssh.PermissionDenied():
                return f"{self._who}: Permission denied ({','.join(self._methods)})."
            case asyncssh.ConnectionLost():
                return f"Connection closed by {target}: {said}"
        return f"Received disconnect from {target}:{error.code}: {said}"

    def _explain_disagreement(self, said: str, target: str) -> str:
        if self.known.keys and "host key" in said:
            self.known.tell_change()  # it has no key of any kind that we know it by
            return UNVERIFIED
        return f"Unable to negotiate with {target}: {said[:1].lower()}{said[1:]}"

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        self._dialog.mark("Remote protocol version 2.0")
        self.on_connection(conn)

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        del host, addr, port  # those of the connection, which may be a proxy's
        return self.known.accept(key)

    def auth_banner_received(self, msg: str, lang: str) -> None:
        del lang
        show(sys.stderr.fileno(), msg)

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        self._note_methods()
        async for pairs in self._keys:  # where the last one ended
            if pairs:
                return list(pairs)
        return None

    def password_auth_requested(self) -> str | None:
        self._note_methods()
        self._passwords -= 1
        if self._passwords < 0:
            return None
        self._say_wrong()
        return self._dialog.ask(f"{self._who}'s password: ")

    def kbdint_auth_requested(self) -> str | None:
        self._note_methods()
        self._challenges -= 1
        if self._challenges < 0:
            return None
        self._say_wrong()
        return ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Questions
    ) -> list[str] | None:
        del lang
        self._dialog.mark("Next authentication method: keyboard-interactive")
        for text in name, instructions:
            show(sys.stderr.fileno(), text)
        answers = []
        for question, echo in prompts:
            # Who asks is said first: the rest of it is the server's text.
            answer = self._dialog.ask(f"({self._who}) {clean(question)}", echo=echo)
            if answer is None:
                return None
            answers.append(answer)
        return answers

    def _note_methods(self) -> None:
        if not self._methods:
            self._methods = list(self._connection.get_server_auth_methods())
            methods = ",".join(self._methods)
            self._dialog.mark(f"Authentications that can continue: {methods}")

    def _say_wrong(self) -> None:
        if self._asked:
            self._dialog.say("Permission denied, please try again.")
        self._asked = True
