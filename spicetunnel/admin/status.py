"""`spicetunnel status`: whether the broker is well, for people and for monitoring."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from spicetunnel.admin.broker import BrokerDownError, ask, run_dir_option
from spicetunnel.admin.figures import clock, count, span
from spicetunnel.admin.options import json_option
from spicetunnel.admin.service import service
from spicetunnel.admin.terminal import field, hint, say
from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import Message, flag, number, text
from spicetunnel.policy.problems import printable

_TROUBLE = click.style("trouble", fg="red")


@click.command()
@json_option
@run_dir_option
def status(as_json: bool, run_dir: str) -> int:
    """Say whether broker and relay are well.

    Exit code 0: they are. 69: one of them does not answer, a socket is gone, or a VM's socket may
    not be opened. 77: you are not an admin. 78: the map's last change was refused, and the previous
    map is in force.
    """
    try:
        found = fetch(run_dir)
    except BrokerDownError as error:
        if as_json:
            raise
        return _tell_down(error)
    code, verdict, advice = _verdict(found)
    if as_json:
        say(json.dumps(found))
        return code
    word = click.style("ok", fg="green") if code == os.EX_OK else _TROUBLE
    say(f"{word}: {verdict}")
    for name, words in _fields(found):
        say(field(name, printable(words)))
    if advice:
        hint(advice)
    return code


def _tell_down(error: BrokerDownError) -> int:
    """Why the broker does not answer, as far as the service manager and its last words tell."""
    found = service()
    say(f"{_TROUBLE}: {error.reason}")
    for name, words in (("service", found.state), ("it said", found.said)):
        if words:
            say(field(name, words))
    hint(found.hint or "'journalctl -u spicetunneld' has its words; systemctl starts it")
    return error.exit_code


def fetch(run_dir: str) -> Message:
    """STATUS of docs/protocol.md. Raises as `ask` does."""
    return part(ask(run_dir, "status"), "status")


def part(message: Message, key: str) -> Message:
    """The object under `key`. Raises ProtocolError."""
    found = message.get(key)
    if not isinstance(found, dict):
        raise ProtocolError(f"the broker's answer has no '{key}'")
    return found


def _verdict(found: Message) -> tuple[int, str, str]:
    """The exit code, the verdict, and a hint."""
    gone = [path for path, there in _sockets(found) if not there]
    if gone:
        words = f"{printable(', '.join(gone))} is gone: nobody gets in"
        return os.EX_UNAVAILABLE, words, "restart spicetunneld; running sessions go on"
    if error := _relay_error(found):
        words = f"nobody can open a session: {printable(error)}"
        return os.EX_UNAVAILABLE, words, "start spicetunnel-relay; running sessions go on"
    if not flag(part(found, "map"), "ok"):
        words = "the map was refused, and the one before is in force"
        return os.EX_CONFIG, words, "'spicetunnel check' names every problem"
    if many := number(part(found, "vms"), "unreachable"):
        words = f"the broker may not open the socket of {count(many, 'vm')}"
        return os.EX_UNAVAILABLE, words, "see their owner, group and mode, and those above them"
    return os.EX_OK, "broker and relay are well", ""


def _fields(found: Message) -> Iterator[tuple[str, str]]:
    yield "broker", f"version {text(found, 'version')}, up {span(number(found, 'uptime'))}"
    yield "sessions", _sessions(found)
    yield from _map(part(found, "map"))
    yield from _vms(part(found, "vms"))
    yield "relay", _relay_error(found) or "ready"
    yield "sockets", ", ".join(path for path, _ in _sockets(found))


def _relay_error(found: Message) -> str:
    """Why the relay begins no session; empty if it does."""
    relay = part(found, "relay")
    return "" if flag(relay, "ok") else text(relay, "error") or "the relay does not answer"


def _sessions(found: Message) -> str:
    orphans = number(found, "orphans")
    words = f"{number(found, 'sessions')}, with {count(number(found, 'channels'), 'channel')}"
    return f"{words}; {orphans} more wait for their gates" if orphans else words


def _map(about: Message) -> Iterator[tuple[str, str]]:
    size = f"{count(number(about, 'vms'), 'vm')}, {count(number(about, 'grants'), 'grant')}"
    since = clock(datetime.fromisoformat(text(about, "loaded")), datetime.now(UTC))
    yield "map", f"{text(about, 'file')}: {size}, in force since {since}"
    if about.get("age") is not None:
        yield "changed", f"{span(number(about, 'age'))} ago"
    others = number(about, "errors") - 1
    if not flag(about, "ok"):
        yield "refused", text(about, "error") + (f" (and {others} more)" if others > 0 else "")


def _vms(vms: Message) -> Iterator[tuple[str, str]]:
    states = ((number(vms, state), state) for state in ("running", "off", "unreachable"))
    words = ", ".join(f"{many} {state}" for many, state in states if many) or "none"
    names = vms.get("unreachable_names")
    if isinstance(names, list) and names:
        words += f": {', '.join(map(str, names))}"
    yield "vms", words


def _sockets(found: Message) -> list[tuple[str, bool]]:
    sockets = found.get("sockets")
    if not isinstance(sockets, list):
        raise ProtocolError("the broker's answer has no 'sockets'")
    return [(text(each, "path"), flag(each, "ok")) for each in sockets]
