"""The menu to pick a VM on a terminal: arrow keys move, letters search, Enter opens.

It is shown below the command line, not on a screen of its own, and is erased when it ends.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_cwidth

from spice_connect import signals
from spice_connect.errors import Interrupted
from spice_connect.ui.terminal import size
from spice_connect.vms.hosts import FRESH, Hosts
from spice_connect.vms.row import Offer, Pick, Row

ABOVE_AND_BELOW = 2  # the line for typing, and the line with the help
MAX_LINES = 20  # of VMs; more are scrolled
GAP = "  "
#: Seconds after which an Esc is the key, and not the first byte of an arrow key.
ESCAPE = 0.05


class Menu:
    def __init__(self, rows: list[Row], hosts: Hosts) -> None:
        self._rows, self._hosts = rows, hosts
        self._at = self._first = 0  # the selected and the first shown of the matching rows
        self._note = ""
        self._offer: Offer | None = None  # what is offered for the selected row, which is not free
        self._typed = Buffer(multiline=False, on_text_changed=lambda _: self._go_to(0))
        self._app: Application[Pick | None] = Application(
            layout=Layout(self._windows()),
            key_bindings=_keys(self),
            output=_output(),
            erase_when_done=True,
        )
        self._app.ttimeoutlen = ESCAPE

    def run(self) -> Pick | None:
        """What was picked, or None. Raises Interrupted."""
        try:
            return self._app.run(
                pre_run=self._begin, set_exception_handler=False, handle_sigint=False
            )
        finally:
            signals.install()  # asyncio has restored the default handlers

    def move(self, lines: int) -> None:
        self._go_to(self._at + lines)

    def move_to_end(self, *, last: bool) -> None:
        self._go_to(len(self._matching()) if last else 0)

    def page(self) -> int:
        return max(1, self._height() - 1)

    def take(self) -> None:
        """Enter: open the selected VM, or offer what else can be done; then, wait for it."""
        row = self._selected()
        if row is None:
            return
        offer = row.offer()
        if offer is None:
            self._app.exit(result=Pick(row))
        elif self._offer and offer.wait:
            self._app.exit(result=Pick(row, wait=True))
        else:
            self._offer, self._note = offer, _words(offer)

    def take_over(self) -> None:
        """Ctrl-T: where that is offered, open the selected VM and end the session that has it."""
        row = self._selected()
        if row and self._offer and self._offer.take_over:
            self._app.exit(result=Pick(row, take_over=True))

    def leave(self) -> None:
        """Esc: take back the offer, or leave."""
        if self._offer:
            self._offer, self._note = None, ""
        else:
            self._app.exit(result=None)

    def has_typed(self) -> bool:
        return bool(self._typed.text)

    def interrupt(self, signum: int) -> None:
        if self._app.is_running and not self._app.is_done:
            self._app.exit(exception=Interrupted(signum))

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in signals.ENDING:
            loop.add_signal_handler(signum, self.interrupt, signum)
        loop.add_reader(self._hosts.fileno(), self._hear)
        self._app.create_background_task(self._keep_fresh())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(FRESH)
            self._hosts.refresh()

    def _hear(self) -> None:
        def hear() -> None:
            self._show(self._hosts.take())

        async def hear_and_go_on() -> None:
            if self._hosts.pending():  # above the menu, since it may print messages
                await run_in_terminal(hear)
            else:
                hear()
            self._app.invalidate()
            loop.add_reader(self._hosts.fileno(), self._hear)

        loop = asyncio.get_running_loop()
        loop.remove_reader(self._hosts.fileno())
        self._app.create_background_task(hear_and_go_on())

    def _show(self, rows: list[Row]) -> None:
        """Show these rows; what is selected stays so, and an offer as long as it holds."""
        before = self._selected()
        self._rows = rows
        matching = self._matching()
        same = [n for n, row in enumerate(matching) if before and _is_same(row, before)]
        self._at = same[0] if same else max(0, min(self._at, len(matching) - 1))
        now = self._selected()
        if self._offer and (not now or not same or now.offer() != self._offer):
            self._offer, self._note = None, ""

    def _selected(self) -> Row | None:
        matching = self._matching()
        return matching[self._at] if matching else None

    def _go_to(self, line: int) -> None:
        self._at = max(0, min(line, len(self._matching()) - 1))
        self._offer, self._note = None, ""

    def _matching(self) -> list[Row]:
        words = self._typed.text.lower().split()
        return [row for row in self._rows if _matches(row, words)]

    def _windows(self) -> HSplit:
        typed = BufferControl(self._typed, input_processors=[BeforeInput("> ")])
        return HSplit(
            [
                Window(typed, height=1),
                Window(FormattedTextControl(self._lines), height=self._height),
                Window(FormattedTextControl(self._last_line), height=1),
            ]
        )

    def _height(self) -> int:
        room = self._app.output.get_size().rows - ABOVE_AND_BELOW - 1
        return max(1, min(len(self._rows), room, MAX_LINES))

    def _lines(self) -> StyleAndTextTuples:
        matching, height = self._matching(), self._height()
        self._first = max(self._at - height + 1, min(self._first, self._at))
        shown = matching[self._first : self._first + height]
        columns = Columns(self._rows, self._app.output.get_size().columns)
        lines: StyleAndTextTuples = []
        for number, row in enumerate(shown, self._first):
            mark = "reverse" if number == self._at else "" if row.is_open else "dim"
            lines += [(mark, columns.line(row)), ("", "\n")]
        return lines[:-1]

    def _last_line(self) -> StyleAndTextTuples:
        pending = self._hosts.pending()
        what = f"{len(self._matching())} of {len(self._rows)}; Enter opens, Esc leaves"
        asking = f"; asking {', '.join(pending)}" if pending else ""
        text = self._note or what + asking
        return [("" if self._note else "dim", fit(text, self._app.output.get_size().columns - 1))]


def _words(offer: Offer) -> str:
    ways = [("Enter waits for it", offer.wait), ("Ctrl-T takes it over", offer.take_over)]
    said = ", ".join([way for way, offered in ways if offered] + ["Esc goes back"])
    return f"{offer.about}: {said}"


def _is_same(one: Row, other: Row) -> bool:
    return (one.name, one.host) == (other.name, other.host)


class Columns:
    """The width of each column in cells. If the terminal is too narrow, titles are shortened."""

    def __init__(self, rows: list[Row], total: int) -> None:
        self._total = total - 1
        with_hosts = len({row.host for row in rows}) > 1
        self._name = _widest(row.name for row in rows)
        self._host = _widest(row.host for row in rows) if with_hosts else 0
        state = _widest(row.state for row in rows)
        fixed = [width for width in (self._name, self._host, state) if width]
        left = self._total - sum(fixed) - len(GAP) * len(fixed)
        self._title = max(0, min(left, _widest(row.title for row in rows)))

    def line(self, row: Row) -> str:
        cells = [(row.name, self._name), (row.host, self._host), (row.title, self._title)]
        parts = [fit(text, width) for text, width in cells if width]
        return fit(GAP.join([*parts, row.state]), self._total).rstrip()


def fit(text: str, width: int) -> str:
    """Pad or shorten to `width` cells. A character takes one cell, two or none."""
    if get_cwidth(text) <= width:
        return text + " " * (width - get_cwidth(text))
    while text and get_cwidth(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width else ""


def _widest(texts: Iterable[str]) -> int:
    return max(map(get_cwidth, texts), default=0)


def _matches(row: Row, words: list[str]) -> bool:
    text = f"{row.name} {row.title} {row.host}".lower()
    return all(word in text for word in words)


def _output() -> Output:
    def our_size() -> Size:
        columns, rows = size(sys.stdout.fileno())
        return Size(rows=rows, columns=columns)

    # No CPR: it would ask the terminal for the cursor, and print a warning without an answer.
    return Vt100_Output(sys.stdout, our_size, term=os.environ.get("TERM"), enable_cpr=False)


def _keys(menu: Menu) -> KeyBindings:
    keys = KeyBindings()

    def on(act: Callable[[], None], *names: str) -> None:
        def handle(_event: KeyPressEvent) -> None:
            act()

        for name in names:
            keys.add(name)(handle)

    on(lambda: menu.move(-1), "up", "c-p")
    on(lambda: menu.move(1), "down", "c-n", "tab")
    on(lambda: menu.move(-menu.page()), "pageup")
    on(lambda: menu.move(menu.page()), "pagedown")
    on(lambda: menu.move_to_end(last=False), "home")
    on(lambda: menu.move_to_end(last=True), "end")
    on(menu.take, "enter")
    on(menu.take_over, "c-t")
    on(menu.leave, "escape", "c-d")
    on(lambda: menu.interrupt(signals.ENDING[0]), "c-c")
    return keys
