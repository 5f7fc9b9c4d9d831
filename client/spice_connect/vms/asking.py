"""The VMs of all hosts: several are asked side by side, and none waits for a dead one.

The prompts of several ssh would mix, so side by side none may ask. Where that kept us from logging
in, the host is asked again, one after another, if somebody is there to answer.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.tunnel import dial, talk
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Said
from spice_connect.tunnel.loop import Fence, Loop
from spice_connect.ui.progress import Progress
from spice_connect.ui.terminal import Terminal

#: Seconds until what is there is shown, and from then until the rest is given up.
FIRST_ROUND, LAST_ROUND = 3.0, 12.0


class Question:
    """One host that is asked. Once it is `over`, a `failure` says why it has no `vms` for us."""

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
        self.over = self.lacks_prompt = self._answered = False
        self._terminal = terminal
        self._link = dial.to_list(janitor, config, terminal, progress)

    def watch(self, loop: Loop, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._link.watch(Fence(loop, self._end), self._on_event, self._on_ssh_end)

    def give_up(self) -> None:
        self._end(self._link.silence())

    def _on_event(self, event: Said) -> None:
        if isinstance(event, talk.Vms):
            self._answered = True
            self.vms += event.vms
        elif isinstance(event, talk.Notice):
            self._terminal.tell(event.reason, event.hint)

    def _on_ssh_end(self) -> None:
        complete = self._answered and self._link.status() == 0
        self._end(None if complete else self._link.loss())

    def _end(self, failure: ClientError | None) -> None:
        self.over, self.failure = True, failure
        self.lacks_prompt = failure is not None and self._link.lacked_prompt()
        self._link.close()
        self._on_end()


class SideBySide:
    """Several hosts, asked at once. Each question is handed out once, when it is over."""

    def __init__(
        self, janitor: Janitor, config: Config, terminal: Terminal, hosts: list[str]
    ) -> None:
        self._loop = Loop(janitor)
        self._left = [Question(janitor, config.at(host), terminal) for host in hosts]
        for question in self._left:
            question.watch(self._loop, self._on_end)

    def pending(self) -> list[str]:
        """The hosts that have not answered."""
        return [question.host for question in self._left]

    def wait(self, seconds: float) -> list[Question]:
        """Until all are over, or the time is."""
        if self._left:
            self._loop.stop(seconds)
            self._loop.run()
        return self.take()

    def fileno(self) -> int:
        """Readable where `take` may find something."""
        return self._loop.fileno()

    def take(self) -> list[Question]:
        """What is over by now; it does not wait."""
        self._loop.run_once()
        over = [question for question in self._left if question.over]
        self._left = [question for question in self._left if not question.over]
        return over

    def give_up(self) -> list[Question]:
        """On all that are left."""
        for question in self._left:
            question.give_up()
        return self.take()

    def close(self) -> None:
        self._loop.close()

    def _on_end(self) -> None:
        if all(question.over for question in self._left):
            self._loop.stop()


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
    with contextlib.closing(Loop(janitor)) as loop:
        question.watch(loop, loop.stop)
        loop.run()
    return question
