"""Everything the gate says to a person or a client.

Rules: one line, lower case, no full stop; a `hint:` on a line of its own. In JSON mode one object
a line on stdout and nothing on stderr, and the first one begins with a newline: a start-up file of
the person's, which ran before us, may have left its own line open.
"""

import json
import sys

from spicetunnel.common.protocol import Message, text

#: The keys of a refusal, a notice or an end that are for the client.
_TOLD = ("event", "code", "reason", "hint", "times")


class Terminal:
    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._line_start = "\n"

    def ready(self, message: Message) -> None:
        if self.as_json:
            self._object(message)
            return
        until = text(message, "until", "")
        span = f" until {_short(until, message)}" if until else ""
        limits = f" ({', '.join(_limits(message))})" if _limits(message) else ""
        what = f"{text(message, 'vm')} is ready{span}{limits}"
        self._line(f"{what}: connect your viewer to the forwarded socket")

    def trouble(self, event: str, reason: str, hint: str, code: int) -> None:
        """Say why we refuse or end, without a word of the broker's; `event` is which."""
        self.tell({"event": event, "code": code, "reason": reason, "hint": hint})

    def tell(self, message: Message) -> None:
        """Say a refusal, a notice or the end of the session. Raises ProtocolError."""
        reason, hint = text(message, "reason"), text(message, "hint", "")
        if self.as_json:
            self._object({key: message[key] for key in _TOLD if key in message})
            return
        if reason:
            print(f"spicetunnel: {reason}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)

    def attached(self) -> None:
        """Say that the person's viewer got past the VM's main channel; for a client alone."""
        if self.as_json:
            self._object({"event": "attached"})

    def vms(self, rows: list[Message]) -> None:
        if self.as_json:
            self._object({"event": "vms", "vms": rows})
        elif not rows:
            self._line("there is no VM that you may use")
        else:
            self._table([("VM", "STATE", "TITLE"), *map(_row, rows)])

    def person(self, message: Message) -> None:
        groups = message.get("groups")
        self._line(f"user: {text(message, 'user')}")
        self._line(f"uid: {message.get('uid')}")
        self._line(f"groups: {', '.join(map(str, groups)) if isinstance(groups, list) else ''}")

    def help(self, words: str) -> None:
        sys.stdout.write(words)

    def _table(self, rows: list[tuple[str, ...]]) -> None:
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        for name, state, title in rows:
            self._line(f"{name:<{widths[0]}}  {state:<{widths[1]}}  {title}".rstrip())

    def _object(self, message: Message) -> None:
        start, self._line_start = self._line_start, ""
        self._line(start + json.dumps(message))

    def _line(self, line: str) -> None:
        print(line, flush=True)


def _row(vm: Message) -> tuple[str, ...]:
    return text(vm, "name"), _state(vm), text(vm, "title", "")


def _state(vm: Message) -> str:
    limits = _limits(vm)
    return f"{_when(vm)}, {', '.join(limits)}" if limits else _when(vm)


def _when(vm: Message) -> str:
    state, busy_by = text(vm, "state"), text(vm, "busy_by", "")
    until, opens = text(vm, "until", ""), text(vm, "next", "")
    if state == "closed" and opens:
        return f"opens {_short(opens, vm)}"
    if busy_by:
        return f"{state} ({busy_by})"
    return f"{state} until {_short(until, vm)}" if until else state


def _limits(message: Message) -> list[str]:
    limits = message.get("limits", [])
    return [str(each) for each in limits] if isinstance(limits, list) else []


def _short(moment: str, message: Message) -> str:
    """`2026-11-23T17:00:00+01:00` as `2026-11-23 17:00 (Europe/Berlin)`: the VM's own time."""
    zone = text(message, "zone", "")
    return f"{moment[:16].replace('T', ' ')}{f' ({zone})' if zone else ''}"
