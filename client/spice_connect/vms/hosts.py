"""Asks the hosts for their VMs: several at once, without waiting for a dead one.

The prompts of several ssh processes would mix, so with several hosts none may prompt. If a login
failed because of that, and there is a user to answer, that host is asked again alone. A single host
is asked alone at once.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from spice_connect import files
from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel import protocol, start
from spice_connect.tunnel.connection import Closed, Failed
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.terminal import Progress, Terminal, clean

#: Seconds until the first answers are shown, and then until the silent hosts are given up.
FIRST_ROUND, LAST_ROUND = 3.0, 12.0


class Row(NamedTuple):
    """A VM as shown to the user; the texts are clean. `vm`: the server's answer, and the host."""

    name: str
    host: str
    title: str
    state: str
    vm: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether it may be opened now."""
        return str(self.vm["state"]) != "closed"


class Question:
    """The request to one host: a source of one event (see loop.py), which is itself, when done.

    Then it has either `vms` or a `failure`.
    """

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        terminal: Terminal,
        progress: Progress | None = None,
    ) -> None:
        """With a `progress`, ssh may prompt."""
        self.host, self.place = config.host, config.place
        self.vms: list[dict[str, Any]] = []
        self.failure: ClientError | None = None
        self.lacks_prompt = self._answered = False
        self._terminal = terminal
        self._connection = start.to_list(janitor, config, terminal, progress)

    def fileno(self) -> int:
        return self._connection.fileno()

    def events(self) -> "list[Question]":
        for event in self._connection.events():
            match event:
                case protocol.Vms(vms):
                    self._answered = True
                    self.vms += vms
                case protocol.Notice(reason, hint):
                    self._terminal.tell(reason, hint)
                case Failed(error):
                    return [self._over(error)]
                case Closed(loss):
                    complete = self._answered and self._connection.status() == 0
                    return [self._over(None if complete else loss)]
        return []

    @property
    def is_overdue(self) -> bool:
        """Whether the host has let the user in, and then said nothing for too long."""
        due = self._connection.first_word_due
        return due is not None and time.monotonic() > due

    def give_up(self) -> None:
        self._over(self._connection.silence())

    def close(self) -> None:
        self._connection.close()

    def _over(self, failure: ClientError | None) -> Self:
        self.failure = failure
        self.lacks_prompt = failure is not None and self._connection.lacked_prompt()
        return self


class Hosts:
    """Asks all configured hosts, and returns the rows of their VMs as they come.

    The failure of one of several hosts is printed. With a single host, its failure is raised.
    """

    def __init__(self, janitor: Janitor, config: Config, terminal: Terminal) -> None:
        self._janitor, self._config, self._terminal = janitor, config, terminal
        hosts = config.every_host()
        self.are_several = len(hosts) > 1
        if self.are_several:
            terminal.show(f"asking {len(hosts)} hosts")
        self._alone = [] if self.are_several else hosts  # hosts to ask one after another
        several = hosts if self.are_several else []
        self._asked = [Question(janitor, config.at(host), terminal) for host in several]
        self._over = list[Question]()
        self._loop = Loop[Question](janitor)
        for question in self._asked:
            self._loop.watch(question)

    def first(self) -> Iterator[list[Row]]:
        """Rows of the hosts that answer soon, and of those whose ssh has to prompt."""
        yield self._rows(self._ask_alone_if_it_helps(self._wait(FIRST_ROUND)))
        yield from self._rows_of_those_alone()

    def rest(self) -> Iterator[list[Row]]:
        """Rows of the other hosts. Those that stay silent are given up."""
        over = self._wait(LAST_ROUND)
        for question in self._asked:
            question.give_up()
        over += self._hand_out(self._asked)
        yield self._rows(self._ask_alone_if_it_helps(over))
        yield from self._rows_of_those_alone()

    def fileno(self) -> int:
        """Readable when `take` may return rows."""
        return self._loop.fileno()

    def take(self) -> list[Row]:
        """Rows of the hosts that have answered by now. Never waits, and asks no host again."""
        return self._rows(self._hand_out(list(self._loop.poll())))

    def pending(self) -> list[str]:
        """The hosts that have not answered."""
        return [question.host for question in self._asked]

    def failure(self) -> ClientError | None:
        """The first failure, if all hosts failed. To be called when none is pending."""
        failures = [question.failure for question in self._over if question.failure]
        return failures[0] if len(failures) == len(self._over) else None

    def tell_none(self) -> None:
        """Say that the hosts that answered have no VM for the user."""
        answered = [question.place for question in self._over if not question.failure]
        self._terminal.tell(f"no VM on {' or '.join(answered)} is yours", "its admin grants them")

    def close(self) -> None:
        self._loop.close()

    def _wait(self, seconds: float) -> list[Question]:
        """Wait until all have answered or the time is up; return those that have."""
        over, deadline = list[Question](), time.monotonic() + seconds
        while len(over) < len(self._asked):
            match self._loop.next(deadline):
                case Question() as question:
                    over.append(question)
                    self._loop.forget(question)
                case TimedOut():
                    break
        return self._hand_out(over)

    def _hand_out(self, over: list[Question]) -> list[Question]:
        """Close these questions; return them in the order of the configuration."""
        for question in over:
            self._loop.forget(question)
            question.close()
        asked, self._asked = self._asked, [each for each in self._asked if each not in over]
        return [question for question in asked if question in over]

    def _ask_alone_if_it_helps(self, over: list[Question]) -> list[Question]:
        """Put aside the hosts whose ssh could prompt if asked alone; return the others."""
        if not self._terminal.is_attended():
            return over
        self._alone += [question.host for question in over if question.lacks_prompt]
        return [question for question in over if not question.lacks_prompt]

    def _rows_of_those_alone(self) -> Iterator[list[Row]]:
        alone, self._alone = self._alone, []
        for host in alone:
            yield self._rows([ask_alone(self._janitor, self._config.at(host), self._terminal)])

    def _rows(self, over: list[Question]) -> list[Row]:
        self._over += over
        for question in over:
            if question.failure:
                self._tell(question.host, question.failure)
            else:
                files.remember_vms(question.host, (vm["name"] for vm in question.vms))
        answered = [question for question in over if not question.failure]
        return [row_of(vm | {"host": each.host}) for each in answered for vm in each.vms]

    def _tell(self, host: str, failure: ClientError) -> None:
        if not self.are_several:
            raise failure
        named = host in failure.reason
        self._terminal.tell(failure.reason if named else f"{host}: {failure.reason}")


def ask_alone(janitor: Janitor, config: Config, terminal: Terminal) -> Question:
    """Ask one host and wait for it; its ssh may prompt."""
    progress = Progress(terminal, config.place, "your VMs")
    progress.begin()
    question = Question(janitor, config, terminal, progress)
    with contextlib.closing(Loop[Question](janitor)) as loop, contextlib.closing(question):
        loop.watch(question)
        # Looked at each second: until the login, the user has all the time they want.
        while isinstance(loop.next(time.monotonic() + 1), TimedOut):
            if question.is_overdue:
                question.give_up()
                break
    return question


def row_of(vm: dict[str, Any]) -> Row:
    name, host, title = (clean(vm[key]) for key in ("name", "host", "title"))
    return Row(name, host, title, clean(_state(vm)), vm)


def _state(vm: dict[str, Any]) -> str:
    state, who = str(vm["state"]), vm["busy_by"]
    if state == "closed" and vm["next"]:
        return f"opens {_short(vm['next'])}"
    if who and state != "shared":
        return f"busy: {who}"
    until = f" until {_short(vm['until'])}" if vm["until"] else ""
    # A shared VM has a place left, so the time limit matters as for a free one.
    return f"free{until}, shared with {who}" if who else f"{state}{until}"


def _short(moment: str) -> str:
    """`2026-11-23T17:00:00+01:00` to the minute, in the server's time zone."""
    return moment[:16].replace("T", " ")
