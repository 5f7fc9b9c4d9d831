"""spicetunnel-gate: sshd runs it for each request of an authenticated user, as that user.

Read top-down: where it was called from, what was asked, ask the broker, run. It holds no right of
its own: the broker decides, by what the kernel says of this process.
"""

import os
import re
import signal
import socket
import sys

from spicetunnel.common import fdpass
from spicetunnel.common.errors import ProtocolError, SpicetunnelError, UsageError
from spicetunnel.common.protocol import (
    CONTROL_SOCKET,
    RUN_DIR,
    VERSION,
    Message,
    decode,
    encode,
    flag,
    number,
    text,
)
from spicetunnel.gate import request as grammar
from spicetunnel.gate.session import Session
from spicetunnel.gate.terminal import Terminal

_RUN_DIR_OPTION = re.compile(r"(?: --run-dir (/[A-Za-z0-9/._+-]+))?")
_FORCED_COMMAND = re.compile(rf"exec /[A-Za-z0-9/._+-]+{_RUN_DIR_OPTION.pattern}")


def main() -> None:
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)  # whatever our parent ignored
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    terminal = Terminal(as_json="--json" in os.environ.get("SSH_ORIGINAL_COMMAND", "").split(" "))
    try:
        code = run(sys.argv[1:], terminal)
    except SpicetunnelError as error:
        terminal.trouble("refused", error.reason, error.hint, error.exit_code)
        code = error.exit_code
    except BrokenPipeError:
        code = os.EX_OK  # nobody is left to tell
    leave(code)


def run(arguments: list[str], terminal: Terminal) -> int:
    """Carry out SSH_ORIGINAL_COMMAND; the exit code. Raises SpicetunnelError."""
    run_dir = run_dir_from(arguments)
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    try:
        request = grammar.parse(command)
    except UsageError:
        log_rejected(run_dir, command)
        raise
    if request.verb == "help":
        terminal.help(grammar.HELP)
        return os.EX_OK
    with connect(run_dir) as broker:
        ask(broker, question(request))
        return ACTIONS[request.verb](broker, terminal)


def run_dir_from(arguments: list[str]) -> str:
    """The run directory from our own options.

    As a login shell we are called with `-c` and the drop-in's ForceCommand, which names
    ourselves: its options count then, and nothing else it could say is obeyed.
    """
    if arguments[:1] == ["-c"] and len(arguments) == 2:
        found = _FORCED_COMMAND.fullmatch(arguments[1])
    else:
        found = _RUN_DIR_OPTION.fullmatch("".join(f" {each}" for each in arguments))
    if found is None:
        raise UsageError("the gate was not started by sshd's ForceCommand")
    return found[1] or RUN_DIR


def connect(run_dir: str) -> socket.socket:
    """A connection to the broker. Raises SpicetunnelError where none listens."""
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        broker.connect(f"{run_dir}/{CONTROL_SOCKET}")
    except OSError as error:
        broker.close()
        raise SpicetunnelError(
            f"the server's broker does not answer ({error.strerror})",
            "tell the admin of this server that spicetunneld is not running",
        ) from None
    return broker


def question(request: grammar.Request) -> Message:
    asked: Message = {"v": VERSION, "op": request.verb, "from": connection()}
    if request.verb == "open":
        asked.update(vm=request.vm, take_over=request.take_over)
    return asked


def connection() -> str:
    return os.environ.get("SSH_CONNECTION", "")[:200]


def ask(broker: socket.socket, message: Message) -> None:
    try:
        fdpass.send(broker, encode(message))
    except OSError:
        raise SpicetunnelError("the server's broker went away", "try again") from None


def answer(broker: socket.socket) -> Message:
    """The broker's next message, which brings no descriptor. A refusal is raised."""
    packet, _ = fdpass.receive(broker)
    if not packet:
        raise SpicetunnelError("the server's broker went away", "try again")
    message = decode(packet)
    if text(message, "event") == "refused":
        refusal = SpicetunnelError(text(message, "reason"), text(message, "hint", ""))
        refusal.exit_code = number(message, "code")
        raise refusal
    return message


def hold_session(broker: socket.socket, terminal: Terminal) -> int:
    terminal.ready(answer(broker))
    return Session(broker, terminal).run()


def show_list(broker: socket.socket, terminal: Terminal) -> int:
    rows: list[Message] = []
    more = True
    while more:
        part = answer(broker)
        vms = part.get("vms")
        if not isinstance(vms, list):
            raise ProtocolError("the list is not a list")
        rows += vms
        more = flag(part, "more")
    terminal.vms(rows)
    return os.EX_OK


def show_person(broker: socket.socket, terminal: Terminal) -> int:
    terminal.person(answer(broker))
    return os.EX_OK


ACTIONS = {"open": hold_session, "list": show_list, "whoami": show_person}


def log_rejected(run_dir: str, command: str) -> None:
    """Have the broker note what was tried; the refusal stands whether or not it can."""
    escaped = ascii(command)[:500]
    try:
        with connect(run_dir) as broker:
            ask(broker, {"v": VERSION, "op": "rejected", "command": escaped, "from": connection()})
    except SpicetunnelError:
        pass


def leave(code: int) -> None:
    """Exit without the flush of a stdout whose reader is gone."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(code)


if __name__ == "__main__":
    main()
