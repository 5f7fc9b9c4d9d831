"""The list of VMs in a window, for a user without a terminal: the menu of pick.py with a mouse."""

import json
import os
import selectors
import subprocess
import time
from typing import Any

from spice_connect.errors import ClientError
from spice_connect.tunnel.janitor import Janitor
from spice_connect.ui.windows import GTK_COMMAND, TITLE, Windows
from spice_connect.vms.hosts import FRESH, Hosts
from spice_connect.vms.row import Pick, Row


def by_window(windows: Windows, janitor: Janitor, rows: list[Row], hosts: Hosts) -> Pick | None:
    """What the user picked; None if they closed the window."""
    if windows.is_gtk:
        return _Gtk(janitor, rows, hosts).run()
    for more in hosts.rest():  # these windows do not change
        rows = [*rows, *more]
    while (number := windows.pick([_cells(row) for row in rows])) is not None:
        row = rows[number]
        offer = row.offer()
        if offer is None:
            return Pick(row)
        chosen = windows.offer(offer.about, wait=offer.wait, take_over=offer.take_over)
        if chosen:
            return Pick(row, wait=chosen == "wait", take_over=chosen == "take over")
    return None


class _Gtk:
    def __init__(self, janitor: Janitor, rows: list[Row], hosts: Hosts) -> None:
        self._janitor, self._rows, self._hosts = janitor, rows, hosts

    def run(self) -> Pick | None:
        process = self._janitor.popen(
            [*GTK_COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            own_group=True,
        )
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            return self._serve(process.stdin.fileno(), process.stdout.fileno())
        finally:
            self._janitor.end(process)

    def _serve(self, to_window: int, from_window: int) -> Pick | None:
        self._show(to_window)
        with selectors.DefaultSelector() as selector:
            for fd in from_window, self._hosts.fileno():
                selector.register(fd, selectors.EVENT_READ)
            fresh_at = time.monotonic() + FRESH
            while True:
                ready = {key.fd for key, _ in selector.select(fresh_at - time.monotonic())}
                if from_window in ready:
                    return self._picked(os.read(from_window, 1 << 16))
                if ready:
                    self._rows = self._hosts.take()
                    self._show(to_window)
                if time.monotonic() >= fresh_at:
                    self._hosts.refresh()
                    fresh_at = time.monotonic() + FRESH

    def _show(self, to_window: int) -> None:
        pending = self._hosts.pending()
        text = f"asking {', '.join(pending)}" if pending else ""
        spec = {"kind": "list", "title": TITLE, "text": text, "rows": list(map(_spec, self._rows))}
        try:
            os.write(to_window, json.dumps(spec).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has been closed: its stdout says so

    def _picked(self, said: bytes) -> Pick | None:
        if not said:
            return None
        try:
            answer = json.loads(said)
            key, wait, take_over = _key(answer), bool(answer["wait"]), bool(answer["take_over"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(f"the window said nonsense: {error}") from error
        row = next((row for row in self._rows if (row.name, row.host) == key), None)
        return Pick(row, wait, take_over) if row else None


def _key(answer: dict[str, Any]) -> tuple[str, str]:
    return str(answer["name"]), str(answer["host"])


def _spec(row: Row) -> dict[str, object]:
    offer = row.offer()
    return {
        **{key: getattr(row, key) for key in ("name", "host", "title", "state")},
        "open": offer is None,
        "about": offer.about if offer else "",
        "wait": bool(offer and offer.wait),
        "take_over": bool(offer and offer.take_over),
    }


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, row.host, row.title, row.state
