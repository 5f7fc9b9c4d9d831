"""Asks the hosts for their VMs: several at once, without waiting for a dead one.

The prompts of several ssh processes would mix, so with several hosts none may prompt. If a login
failed because of that, and there is a user to answer, that host is asked again alone. A single host
is asked alone at once.

For a menu, the connections stay: the list is asked for again on them, and the VM that is picked is
opened on its host's.
"""

import itertools
import time
from collections.abc import Iterator

from spice_connect import files
from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel.connection import Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.terminal import Terminal
from spice_connect.vms.question import Question, ask_alone
from spice_connect.vms.row import Row

#: Seconds until the first answers are shown, and then until the silent hosts are given up.
FIRST_ROUND, LAST_ROUND = 3.0, 12.0
#: Seconds between two fresh lists of a menu.
FRESH = 5.0


class Hosts:
    """Asks all configured hosts, and returns the rows of their VMs as they come.

    The failure of one of several hosts is printed. With a single host, its failure is raised.
    """

    def __init__(
        self, janitor: Janitor, config: Config, terminal: Terminal, *, menu: bool = False
    ) -> None:
        self._janitor, self._config, self._terminal = janitor, config, terminal
        self._numbers = itertools.count(1) if menu else itertools.repeat(0)
        hosts = config.every_host()
        self.asked = [config.at(host).place for host in hosts]
        self.are_several = len(hosts) > 1
        if self.are_several:
            terminal.show(f"asking {len(hosts)} hosts")
        self._alone = [] if self.are_several else hosts  # hosts to ask one after another
        several = hosts if self.are_several else []
        self._asked = [
            Question(janitor, config.at(host), terminal, menu=next(self._numbers))
            for host in several
        ]
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
        """Take the answers that are there now; return the rows of all hosts that have answered.

        Never waits, and asks no host alone.
        """
        heard = list(self._loop.poll())
        self._rows(self._hand_out([each for each in heard if each in self._asked]))
        self._follow(heard)
        return [row for each in self._over if not each.failure for row in each.rows()]

    def refresh(self) -> None:
        """Ask for fresh lists, where no new login is needed."""
        for question in self._over:
            question.ask_again()

    def hand_over(self, host: str) -> Connection | None:
        """The connection to this host, to open a VM on it; None if there is none."""
        for question in self._over:
            if question.host == host and question.stands:
                self._loop.forget(question)
                return question.hand_over()
        return None

    def pending(self) -> list[str]:
        """The hosts that have not answered."""
        return [question.host for question in self._asked]

    def failure(self) -> ClientError | None:
        """The first failure, if all hosts failed. To be called when none is pending."""
        failures = [question.failure for question in self._over if question.failure]
        return failures[0] if len(failures) == len(self._over) else None

    def none(self) -> tuple[str, str]:
        """What to say where the hosts that answered have no VM for the user, and a hint."""
        answered = [question.place for question in self._over if not question.failure]
        return f"no VM on {' or '.join(answered)} is yours", "its admin grants them"

    def close(self) -> None:
        self._loop.close()
        for question in [*self._asked, *self._over]:
            question.close()

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
            if not question.stands:
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
            config, number = self._config.at(host), next(self._numbers)
            yield self._rows([ask_alone(self._janitor, config, self._terminal, number)])

    def _rows(self, over: list[Question]) -> list[Row]:
        self._over += over
        self._follow(over)
        for question in over:
            if question.failure:
                self._tell(question.host, question.failure)
            else:
                files.remember_vms(question.host, (vm["name"] for vm in question.vms))
        return [row for question in over if not question.failure for row in question.rows()]

    def _follow(self, answered: list[Question]) -> None:
        """Watch those of them whose connections stay."""
        for question in answered:
            self._loop.forget(question)
            if question.stands:
                self._loop.watch(question)

    def _tell(self, host: str, failure: ClientError) -> None:
        if not self.are_several:
            raise failure
        named = host in failure.reason
        self._terminal.tell(failure.reason if named else f"{host}: {failure.reason}")
