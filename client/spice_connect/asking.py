"""The VMs of all hosts: several are asked side by side, and none waits for a dead one.

The prompts of several ssh would mix, so side by side none may ask. Where that kept us from logging
in, the host is asked again, one after another, if somebody is there to answer.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from spice_connect import dial, talk
from spice_connect.config import Config
from spice_connect.errors import ClientError
from spice_connect.janitor import Janitor
from spice_connect.link import Said
from spice_connect.loop import Fence, Loop
from spice_connect.progress import Progress
from spice_connect.terminal import Terminal

#: Seconds until what is there is shown, and from then until the rest is given up.
ROUNDS = (3.0, 12.0)


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


def ask(janitor: Janitor, config: Config, terminal: Terminal) -> Iterator[list[Question]]:
    """The questions as they are over, each once."""
    hosts = config.every_host()
    again = hosts if len(hosts) == 1 else []
    if not again:
        for over in _side_by_side(janitor, config, terminal, hosts):
            asked_again = [q.host for q in over if q.lacks_prompt and terminal.is_attended()]
            again += asked_again
            yield [question for question in over if question.host not in asked_again]
    for host in again:
        yield [_alone(janitor, config.at(host), terminal)]


def _side_by_side(
    janitor: Janitor, config: Config, terminal: Terminal, hosts: list[str]
) -> Iterator[list[Question]]:
    def on_end() -> None:
        if all(question.over for question in left):
            loop.stop()

    terminal.show(f"asking {len(hosts)} hosts")
    left = [Question(janitor, config.at(host), terminal) for host in hosts]
    with contextlib.closing(Loop(janitor)) as loop:
        for question in left:
            question.watch(loop, on_end)
        for seconds in ROUNDS:
            loop.stop(seconds)
            loop.run()
            yield [question for question in left if question.over]
            left = [question for question in left if not question.over]
            if not left:
                return
        for question in left:
            question.give_up()
        yield left


def _alone(janitor: Janitor, config: Config, terminal: Terminal) -> Question:
    progress = Progress(terminal, config.place, "your VMs")
    progress.begin()
    question = Question(janitor, config, terminal, progress)
    with contextlib.closing(Loop(janitor)) as loop:
        question.watch(loop, loop.stop)
        loop.run()
    return question
