"""spicetunnel-gate: sshd runs it for each request of an authenticated user, as that user.

Read top-down: where it was called from, what was asked, ask the broker, run. It holds no right of
its own: the broker decides, by what the kernel says of this process.
"""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable

from spicetunnel.common.client import connect, receive, receive_rows, send
from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.common.names import PERSON_NAME
from spicetunnel.common.protocol import RUN_DIR, VERSION, Message
from spicetunnel.gate import request as grammar
from spicetunnel.gate.session import Session
from spicetunnel.gate.terminal import Terminal

_OPTIONS = re.compile(
    r"(?: --run-dir (?P<run_dir>/[A-Za-z0-9/._+-]+))?"
    rf"(?: --as (?P<as_name>{PERSON_NAME.pattern}))?",
    re.ASCII,
)
_FORCED_COMMAND = re.compile(rf"(?:exec )?/[A-Za-z0-9/._+-]+{_OPTIONS.pattern}", re.ASCII)


_USAGE = """\
Usage: spicetunnel-gate [--run-dir DIR] [--as NAME]

sshd starts it, by the forced command that 'spicetunnel sshd-config' prints, or
as a login shell. What a person asks for is in SSH_ORIGINAL_COMMAND: an empty
one lists their VMs, and 'help' says what else there is.

Example, as sshd starts it for 'ssh kvm whoami':
  SSH_ORIGINAL_COMMAND=whoami spicetunnel-gate
"""


def main() -> None:
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(_USAGE, end="")
        return
    serve(answer)


def wake(broker: int, session_id: str, grace: int) -> None:
    """Go on with a session whose gate was idle.py; `broker` is a descriptor."""

    def go_on(terminal: Terminal) -> int:
        session = Session(socket.socket(fileno=broker), *asked_by(), terminal)
        return session.resume(session_id, grace)

    serve(go_on)


def serve(work: Callable[[Terminal], int]) -> None:
    """Do `work`, tell the person of a failure, and exit with the exit code."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)  # whatever our parent ignored
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    terminal = Terminal(as_json="--json" in os.environ.get("SSH_ORIGINAL_COMMAND", "").split(" "))
    try:
        code = work(terminal)
    except SpicetunnelError as error:
        terminal.trouble("refused", error.reason, error.hint, error.exit_code)
        code = error.exit_code
    except BrokenPipeError:
        code = os.EX_OK  # nobody is left to tell
    leave(code)


def answer(terminal: Terminal) -> int:
    """Carry out SSH_ORIGINAL_COMMAND; returns the exit code. Raises SpicetunnelError."""
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    run_dir, asker = asked_by()
    try:
        request = grammar.parse(command)
    except UsageError:
        log_rejected(run_dir, {**asker, "op": "rejected", "command": ascii(command)[:500]})
        raise
    if request.verb == "menu":
        return answer_menu(run_dir, asker, terminal)
    if request.verb == "help":
        terminal.help(grammar.HELP)
        return os.EX_OK
    return carry_out(request, run_dir, asker, terminal)


def answer_menu(run_dir: str, asker: Message, terminal: Terminal) -> int:
    """As `answer`, for the lines of a menu."""
    from spicetunnel.gate.menu import serve_menu  # noqa: PLC0415 - not needed by most gates

    listing = grammar.parse("list --json")
    try:
        picked = serve_menu(lambda: carry_out(listing, run_dir, asker, terminal))
    except UsageError as error:
        log_rejected(run_dir, {**asker, "op": "rejected", "command": f"menu: {error.reason}"[:500]})
        raise
    return carry_out(picked, run_dir, asker, terminal) if picked else os.EX_OK


def carry_out(request: grammar.Request, run_dir: str, asker: Message, terminal: Terminal) -> int:
    """Ask the broker; returns the exit code. Raises SpicetunnelError."""
    with connect(run_dir) as broker:
        send(broker, {**asker, **question(request)})
        if request.verb == "open":
            return Session(broker, run_dir, asker, terminal).run()
        return ANSWERS[request.verb](broker, terminal)


def asked_by() -> tuple[str, Message]:
    """The run directory, and what each request begins with: who asks, and from where."""
    forced = "SSH_ORIGINAL_COMMAND" in os.environ
    run_dir, as_name = options_from(sys.argv[1:], forced=forced)
    asker: Message = {"v": VERSION, "from": connection(), **({"as": as_name} if as_name else {})}
    return run_dir, asker


def options_from(arguments: list[str], *, forced: bool) -> tuple[str, str]:
    """Parse our own options: the run directory, and the person we speak for.

    As a login shell we are called with `-c` and a command that names ourselves. sshd's forced
    command and a command of the client's look alike there, with one difference: with a forced
    command, sshd puts the client's into SSH_ORIGINAL_COMMAND. Only then (`forced`) is `--as`
    accepted.
    """
    as_login_shell = arguments[:1] == ["-c"] and len(arguments) == 2
    if as_login_shell:
        found = _FORCED_COMMAND.fullmatch(arguments[1])
    else:
        found = _OPTIONS.fullmatch("".join(f" {each}" for each in arguments))
    if found is None:
        raise UsageError(
            "spicetunnel-gate was not started by sshd's forced command",
            "'spicetunnel sshd-config' prints that; people type 'ssh HOST help'",
        )
    if as_login_shell and found["as_name"] and not forced:
        raise UsageError("say what you want", "the commands are: open VM, list, whoami, help")
    return found["run_dir"] or RUN_DIR, found["as_name"] or ""


def question(request: grammar.Request) -> Message:
    asked: Message = {"op": request.verb}
    if request.verb == "open":
        asked.update(
            vm=request.vm,
            take_over=request.take_over,
            wait=request.wait,
            keep=request.keep,
            replace=request.replace,
        )
    return asked


def connection() -> str:
    return os.environ.get("SSH_CONNECTION", "")[:200]


def show_list(broker: socket.socket, terminal: Terminal) -> int:
    terminal.vms(receive_rows(broker, "vms"))
    return os.EX_OK


def show_person(broker: socket.socket, terminal: Terminal) -> int:
    terminal.person(receive(broker))
    return os.EX_OK


ANSWERS = {"list": show_list, "whoami": show_person}


def log_rejected(run_dir: str, message: Message) -> None:
    """Have the broker log what was tried. It is refused even if the broker cannot be reached."""
    try:
        with connect(run_dir) as broker:
            send(broker, message)
    except SpicetunnelError:
        pass


def leave(code: int) -> None:
    """Exit at once: a flush at interpreter exit would fail if the reader of stdout is gone."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(code)


if __name__ == "__main__":
    main()
