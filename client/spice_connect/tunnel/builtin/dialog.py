"""What the person is told and asked: on their terminal, or by SSH_ASKPASS, as ssh(1) does it."""

import os
import signal
import subprocess
import termios
from types import FrameType

from spice_connect.signals import ENDING
from spice_connect.tunnel.builtin.log import Log
from spice_connect.ui.icon import has_display

ASKPASS = "/usr/bin/ssh-askpass"
MAX_ANSWER = 1024


class Dialog:
    def __init__(self, log: Log, *, batch: bool) -> None:
        """`batch`: there is nobody to ask."""
        self.say, self.mark, self.batch = log.say, log.mark, batch

    def ask(self, question: str, *, echo: bool = False) -> str | None:
        """None: no answer."""
        if self.batch:
            return None
        require = os.environ.get("SSH_ASKPASS_REQUIRE", "")
        shown = has_display()
        if require == "force" or (require == "prefer" and shown):
            return _by_program(question)
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return _by_program(question) if shown and require != "never" else None
        try:
            return _on_terminal(terminal, question, echo=echo)
        finally:
            os.close(terminal)


def _by_program(question: str) -> str | None:
    program = os.environ.get("SSH_ASKPASS") or ASKPASS
    try:
        asked = subprocess.run(
            [program, question], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
    except OSError:
        return None
    lines = asked.stdout.decode(errors="surrogateescape").splitlines()
    return (lines or [""])[0] if asked.returncode == 0 else None


def _on_terminal(terminal: int, question: str, *, echo: bool) -> str | None:
    before = termios.tcgetattr(terminal)

    def restore() -> None:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)

    def end(signum: int, _frame: FrameType | None) -> None:
        restore()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    handlers = {signum: signal.signal(signum, end) for signum in ENDING}
    try:
        if not echo:
            _hide(terminal)
        os.write(terminal, question.encode(errors="replace"))
        answer = _read_line(terminal)
        if not echo:
            os.write(terminal, b"\n")
        return answer
    finally:
        restore()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _hide(terminal: int) -> None:
    mode = termios.tcgetattr(terminal)
    mode[3] &= ~(termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL)
    termios.tcsetattr(terminal, termios.TCSAFLUSH, mode)


def _read_line(terminal: int) -> str | None:
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_ANSWER:
        read = os.read(terminal, MAX_ANSWER)
        if not read:  # Ctrl-D
            return None
        line += read
    return line.decode(errors="surrogateescape").rstrip("\r\n")
