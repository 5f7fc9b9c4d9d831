"""Which VM to open, where none was named and somebody is there who can pick one."""

import contextlib
import os

from spice_connect.config import Config
from spice_connect.tunnel import workdir
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.terminal import Terminal
from spice_connect.vms.asking import FIRST_ROUND, Question, SideBySide, ask_alone, to_ask_again
from spice_connect.vms.listing import remember, tell_failures, tell_none
from spice_connect.vms.rows import Row, rows_of


def choose(config: Config, terminal: Terminal) -> Row | int:
    """Or an exit code: there is nothing to pick, which is told, or nothing was picked."""
    hosts = config.every_host()
    with Janitor(workdir.base()) as janitor:
        asked = Asked(janitor, config, terminal, hosts)
        with contextlib.closing(asked):
            rows = asked.first()
            if not rows and not asked.pending():
                return asked.without_any()
            terminal.show("")
            return _pick(rows, asked) or os.EX_OK


def _pick(rows: list[Row], asked: "Asked") -> Row | None:
    from spice_connect.vms.pick import Pick  # noqa: PLC0415 - 100 ms, only where somebody picks

    return Pick(rows, asked).run()


class Asked:
    """All hosts: what ssh has to ask is asked before one picks, and slow hosts may answer later."""

    def __init__(
        self, janitor: Janitor, config: Config, terminal: Terminal, hosts: list[str]
    ) -> None:
        self._janitor, self._config, self._terminal = janitor, config, terminal
        self._alone = hosts if len(hosts) == 1 else []
        if not self._alone:
            terminal.show(f"asking {len(hosts)} hosts")
        several = [host for host in hosts if host not in self._alone]
        self._several = SideBySide(janitor, config, terminal, several)
        self._over = list[Question]()

    def first(self) -> list[Row]:
        """What is there soon. Raises ClientError where the only host failed."""
        over, again = to_ask_again(self._several.wait(FIRST_ROUND), self._terminal)
        rows = self._take(over)
        for host in (*self._alone, *again):
            question = ask_alone(self._janitor, self._config.at(host), self._terminal)
            rows += self._take([question])
        return rows

    def fileno(self) -> int:
        return self._several.fileno()

    def take(self) -> list[Row]:
        return self._take(self._several.take())

    def pending(self) -> list[str]:
        return self._several.pending()

    def without_any(self) -> int:
        """There is no VM at all: the exit code. A host that failed counts only if all did."""
        failures = [question.failure for question in self._over if question.failure]
        if len(failures) == len(self._over):
            return failures[0].exit_code
        tell_none(self._over, self._terminal)
        return os.EX_OK

    def close(self) -> None:
        self._several.close()

    def _take(self, over: list[Question]) -> list[Row]:
        self._over += over
        remember(over)
        tell_failures(over, self._terminal, one_of_many=not self._alone)
        return rows_of(over)
