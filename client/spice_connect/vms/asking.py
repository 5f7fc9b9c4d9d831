"""The VMs of all hosts: several are asked side by side, and none waits for a dead one.

The prompts of several ssh would mix, so side by side none may ask. Where that kept us from logging
in, the host is asked again, one after another, if somebody is there to answer.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel import dial, talk
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Closed, Failed
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.progress import Progress
from spice_connect.ui.terminal import Terminal

#: Seconds until what is there is shown, and from then until the rest is given up.
FIRST_ROUND, LAST_ROUND = 3.0, 12.0


class Question:
    """One host that is asked: a source of one event, which is itself, once it is over.

    A `failure` says then why it has no `vms` for us.
    """

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        terminal: Terminal,
        progress: Progress | None = None,
    ) -> None:
        """With a `progress`, ssh may ask the person."""
        self.host, self.place = config.host, config.place
        self.vms: list[dict[str, Any]] = []
        self.failure: ClientError | None = None
        self.lacks_prompt = self._answered = False
        self._terminal = terminal
        self._link = dial.to_list(janitor, config, terminal, progress)

    def fileno(self) -> int:
        return self._link.fileno()

    def events(self) -> "list[Question]":
        for event in self._link.events():
            match event:
                case talk.Vms(vms):
                    self._answered = True
                    self.vms += vms
                case talk.Notice(reason, hint):
                    self._terminal.tell(reason, hint)
                case Failed(error):
                    return [self._over(error)]
                case Closed(loss):
                    complete = self._answered and self._link.status() == 0
                    return [self._over(None if complete else loss)]
        return []

    def give_up(self) -> None:
        self._over(self._link.silence())

    def close(self) -> None:
        self._link.close()

    def _over(self, failure: ClientError | None) -> Self:
        self.failure = failure
        self.lacks_prompt = failure is not None and self._link.lacked_prompt()
        return self


class SideBySide:
    """Several hosts, asked at once. Each question is handed out once, when it is over."""

    def __init__(
        self, janitor: Janitor, config: Config, terminal: Terminal, hosts: list[str]
    ) -> None:
        self._loop = Loop[Question](janitor)
        self._left = [Question(janitor, config.at(host), terminal) for host in hosts]
        for question in self._left:
            self._loop.watch(question)

    def pending(self) -> list[str]:
        """The hosts that have not answered."""
        return [question.host for question in self._left]

    def wait(self, seconds: float) -> list[Question]:
        """Until all are over, or the time is."""
        over, deadline = set[Question](), time.monotonic() + seconds
        while len(over) < len(self._left):
            match self._loop.next(deadline):
                case Question() as question:
                    over.add(question)
                    self._loop.forget(question)
                case TimedOut():
                    break
        return self._hand_out(over)

    def fileno(self) -> int:
        """Readable where `take` may find something."""
        return self._loop.fileno()

    def take(self) -> list[Question]:
        """What is over by now; it does not wait."""
        return self._hand_out(set(self._loop.poll()))

    def give_up(self) -> list[Question]:
        """On all that are left."""
        for question in self._left:
            question.give_up()
        return self._hand_out(set(self._left))

    def close(self) -> None:
        self._loop.close()

    def _hand_out(self, over: set[Question]) -> list[Question]:
        """In the order of the configuration."""
        for question in over:
            self._loop.forget(question)
            question.close()
        self._left, left = [each for each in self._left if each not in over], self._left
        return [each for each in left if each in over]


def ask(janitor: Janitor, config: Config, terminal: Terminal) -> Iterator[list[Question]]:
    """The questions as they are over, each once."""
    hosts = config.every_host()
    if len(hosts) == 1:
        yield [ask_alone(janitor, config.at(hosts[0]), terminal)]
        return
    terminal.show(f"asking {len(hosts)} hosts")
    again = list[str]()
    with contextlib.closing(SideBySide(janitor, config, terminal, hosts)) as questions:
        for seconds in FIRST_ROUND, LAST_ROUND:
            over, lacking = to_ask_again(questions.wait(seconds), terminal)
            again += lacking
            yield over
        yield questions.give_up()
    for host in again:
        yield [ask_alone(janitor, config.at(host), terminal)]


def to_ask_again(over: list[Question], terminal: Terminal) -> tuple[list[Question], list[str]]:
    """What of it counts, and the hosts that may be asked again, since somebody can answer them."""
    if not terminal.is_attended():
        return over, []
    lacking = [question.host for question in over if question.lacks_prompt]
    return [question for question in over if not question.lacks_prompt], lacking


def ask_alone(janitor: Janitor, config: Config, terminal: Terminal) -> Question:
    """One host; its ssh may ask the person."""
    progress = Progress(terminal, config.place, "your VMs")
    progress.begin()
    question = Question(janitor, config, terminal, progress)
    with contextlib.closing(Loop[Question](janitor)) as loop, contextlib.closing(question):
        loop.watch(question)
        loop.next()
    return question
