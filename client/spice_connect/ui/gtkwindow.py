"""The windows of spice-connect, with GTK 3: a program of its own, for the system's Python.

Our own Python, in an environment of pipx, has no bindings to GTK. So this file imports nothing of
spice_connect. What it is told comes as JSON, a line each, on stdin, the first one with the `kind`
of window; what the user chose goes as one line of JSON to stdout. It ends when stdin does.

Everything it shows is a server's text: none of it is markup.
"""

import json
import os
import signal
import sys
from typing import Any

import gi

gi.require_version("Gtk", "3.0")
from gi.repository import GLib, Gtk, Pango  # noqa: E402

NO_CHOICE = 1
IS_THERE = 3  # the exit status without any input: GTK can be used
COLUMNS = ("VM", "Host", "Title", "State")
KEYS = ("name", "host", "title", "state")


class Window:
    """A window with a text and a row of buttons; the subclasses put more into it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.window = Gtk.Window(title=spec["title"], icon_name="computer")
        self.window.set_border_width(12)
        self.window.set_position(Gtk.WindowPosition.CENTER)
        self.window.connect("destroy", Gtk.main_quit)
        self.window.connect("key-press-event", self._on_key)
        self.box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=12)
        self.label = Gtk.Label(label=spec.get("text", ""), xalign=0, selectable=True)
        self.label.set_line_wrap(True)
        self.label.set_line_wrap_mode(Pango.WrapMode.WORD_CHAR)
        self.label.set_width_chars(50)  # else a window of one label is as high as it is wide
        self.label.set_max_width_chars(70)
        self.buttons = Gtk.ButtonBox(layout_style=Gtk.ButtonBoxStyle.END, spacing=6)
        self.answer: dict[str, Any] | None = None
        self.spec = spec
        self.fill()
        self.window.add(self.box)

    def fill(self) -> None:
        self.box.add(self.label)
        self.add_button("Close", lambda: None).grab_focus()
        self.box.add(self.buttons)

    def add_button(self, label: str, choose: Any) -> Any:
        """`choose` returns the answer; None for none."""
        button = Gtk.Button(label=label, use_underline=True)
        button.connect("clicked", lambda _: self.leave(choose()))
        self.buttons.add(button)
        return button

    def leave(self, answer: dict[str, Any] | None) -> None:
        self.answer = answer
        self.window.destroy()

    def update(self, spec: dict[str, Any]) -> None:
        self.label.set_text(spec.get("text", ""))

    def _on_key(self, _window: Any, event: Any) -> bool:
        if event.hardware_keycode == 9 or event.keyval == 0xFF1B:  # GDK_KEY_Escape
            self.leave(None)
            return True
        return False


class Entry(Window):
    """Asks for one line."""

    def fill(self) -> None:
        self.entry = Gtk.Entry(activates_default=True, width_chars=40)
        self.box.add(self.label)
        self.box.add(self.entry)
        self.add_button("Cancel", lambda: None)
        go_on = self.add_button("OK", lambda: {"text": self.entry.get_text()})
        go_on.set_can_default(True)
        self.box.add(self.buttons)
        self.window.set_default(go_on)
        self.entry.grab_focus()


class Waiting(Window):
    """Shown until stdin ends. Cancel ends the program that waits, as Ctrl-C does on a terminal."""

    def fill(self) -> None:
        spinner = Gtk.Spinner()
        spinner.start()
        line = Gtk.Box(spacing=12)
        line.add(spinner)
        line.add(self.label)
        self.box.add(line)
        self.add_button("Cancel", lambda: {"cancel": True})
        self.box.add(self.buttons)

    def leave(self, answer: dict[str, Any] | None) -> None:
        del answer  # closed by any means, it is a cancel
        os.kill(os.getppid(), signal.SIGINT)
        super().leave(None)


class VmList(Window):
    """The VMs, and what can be done with the selected one."""

    def fill(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.store = Gtk.ListStore(str, str, str, str)
        self.tree = Gtk.TreeView(model=self.store, search_column=0)
        for number, header in enumerate(COLUMNS):
            renderer = Gtk.CellRendererText(ellipsize=Pango.EllipsizeMode.END, width_chars=12)
            column = Gtk.TreeViewColumn(header, renderer, text=number)
            column.set_resizable(True)
            column.set_expand(header in {"Title", "State"})
            self.tree.append_column(column)
        self.tree.connect("row-activated", lambda *_: self._activate())
        self.tree.get_selection().connect("changed", lambda _: self._show_offer())
        scrolled = Gtk.ScrolledWindow(vexpand=True, shadow_type=Gtk.ShadowType.IN)
        scrolled.add(self.tree)
        self.window.set_default_size(640, 320)
        self.take = self.add_button("_Take over", lambda: self._chosen(take_over=True))
        self.wait = self.add_button("_Wait for it", lambda: self._chosen(wait=True))
        self.open = self.add_button("_Open", self._chosen)
        for widget in (scrolled, self.label, self.buttons):
            self.box.add(widget)
        self.update(self.spec)

    def update(self, spec: dict[str, Any]) -> None:
        selected = self._selected()
        key = (selected["name"], selected["host"]) if selected else None
        self.rows, self.asking = spec["rows"], spec["text"]
        self.store.clear()
        for row in self.rows:
            self.store.append([row[each] for each in KEYS])
        self.tree.get_column(1).set_visible(len({row["host"] for row in self.rows}) > 1)
        keys = [(row["name"], row["host"]) for row in self.rows]
        if self.rows:
            free = next((n for n, row in enumerate(self.rows) if row["open"]), 0)
            at = keys.index(key) if key in keys else free
            self.tree.set_cursor(Gtk.TreePath.new_from_indices([at]), None, False)
        self._show_offer()

    def _selected(self) -> dict[str, Any] | None:
        model, at = self.tree.get_selection().get_selected()
        return self.rows[model.get_path(at)[0]] if at and len(model) == len(self.rows) else None

    def _show_offer(self) -> None:
        row = self._selected()
        self.label.set_text((row and row["about"]) or self.asking)
        self.open.set_sensitive(bool(row and row["open"]))
        for button, offer in (self.wait, "wait"), (self.take, "take_over"):
            button.set_visible(bool(row and row[offer]))

    def _activate(self) -> None:
        """A double click, or Enter: open it, if it is free."""
        if self.open.get_sensitive():
            self.leave(self._chosen())

    def _chosen(self, *, wait: bool = False, take_over: bool = False) -> dict[str, Any] | None:
        row = self._selected()
        if row is None:
            return None
        return {"name": row["name"], "host": row["host"], "wait": wait, "take_over": take_over}


KINDS = {"message": Window, "entry": Entry, "waiting": Waiting, "list": VmList}


def main() -> int:
    first = sys.stdin.readline()
    if not first:
        return IS_THERE
    spec = json.loads(first)
    window = KINDS[spec["kind"]](spec)
    stream = os.fdopen(os.dup(0), "rb", buffering=0)
    lines = b""

    def hear(*_: Any) -> bool:
        nonlocal lines
        chunk = stream.read(1 << 16)
        if not chunk:
            window.window.destroy()
            return False
        *complete, lines = (lines + chunk).split(b"\n")
        for line in complete[-1:]:  # an older list is of no use
            window.update(json.loads(line))
        return True

    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, hear)
    window.window.show_all()
    if isinstance(window, VmList):
        window._show_offer()
    window.window.present()
    Gtk.main()
    if window.answer is None:
        return NO_CHOICE
    print(json.dumps(window.answer), flush=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
