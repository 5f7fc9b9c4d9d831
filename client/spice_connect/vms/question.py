"""The request to one host for its VMs. With a menu, the host may be asked again later."""

import contextlib
import time
from typing import Any, Self

from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel import protocol, ssh, start
from spice_connect.tunnel.connection import Closed, Connection, Failed
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.terminal import Progress, Terminal
from spice_connect.vms.row import Row, row_of


class Question:
    """A source of one event (see loop.py), which is itself, when done.

    Then it has either `vms` or a `failure`. With a menu there may be more of this event: a fresh
    list, or the end of the connection, when `stands` is false.
    """

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        terminal: Terminal,
        progress: Progress | None = None,
        *,
        menu: int = 0,
    ) -> None:
        """With a `progress`, ssh may prompt. `menu`: see start.to_list."""
        self.host, self.place = config.host, config.place
        self.vms: list[dict[str, Any]] = []
        self.failure: ClientError | None = None
        self.lacks_prompt = self._answered = self._asked_again = False
        self._terminal = terminal
        self._has_menu = menu > 0 and ssh.can_serve_menu(config)
        menu = menu if self._has_menu else 0
        self._connection = start.to_list(janitor, config, terminal, progress, menu=menu)
        self._open = True

    @property
    def stands(self) -> bool:
        """Whether its connection can open a VM."""
        return self._has_menu and self._answered and self._open

    def fileno(self) -> int:
        return self._connection.fileno()

    def events(self) -> "list[Question]":
        for event in self._connection.events():
            match event:
                case protocol.Vms(vms):
                    self.vms = vms if self._has_menu else self.vms + vms
                    self._answered, self._asked_again = True, False
                    if self._has_menu:
                        return [self]
                case protocol.Notice(reason, hint):
                    self._terminal.tell(reason, hint)
                case Failed(error):
                    return [self._over(error)]
                case Closed(loss):
                    complete = self._answered and self._connection.status() == 0
                    return [self._over(None if complete else loss)]
        return []

    def ask_again(self) -> None:
        """Ask for a fresh list, unless one is on its way."""
        if self.stands and not self._asked_again:
            self._asked_again = True
            self._connection.say(ssh.LIST)

    def hand_over(self) -> Connection:
        """Its connection, to open a VM; the caller closes it."""
        self._open = False
        return self._connection

    @property
    def is_overdue(self) -> bool:
        """Whether the host has let the user in, and then said nothing for too long."""
        due = self._connection.first_word_due
        return due is not None and time.monotonic() > due

    def give_up(self) -> None:
        self._over(self._connection.silence())

    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.close()

    def rows(self) -> list[Row]:
        return [row_of(vm | {"host": self.host}) for vm in self.vms]

    def _over(self, failure: ClientError | None) -> Self:
        if self._has_menu and self._answered:  # the list stays: the VM gets a login of its own
            self.close()
            return self
        self.failure = failure
        self.lacks_prompt = failure is not None and self._connection.lacked_prompt()
        return self


def ask_alone(janitor: Janitor, config: Config, terminal: Terminal, menu: int = 0) -> Question:
    """Ask one host and wait for it; its ssh may prompt."""
    progress = Progress(terminal, config.place, "your VMs")
    progress.begin()
    question = Question(janitor, config, terminal, progress, menu=menu)
    with contextlib.closing(Loop[Question](janitor)) as loop:
        loop.watch(question)
        try:
            # Looked at each second: until the login, the user has all the time they want.
            while isinstance(loop.next(time.monotonic() + 1), TimedOut):
                if question.is_overdue:
                    question.give_up()
                    break
        except BaseException:
            question.close()
            raise
    if not question.stands:
        question.close()
    return question
