"""A session at a VM: one connection, and a new one each time that the network drops it."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from spice_connect import files
from spice_connect.config import Config
from spice_connect.errors import ClientError, LostError, ServerError
from spice_connect.flood import Bounds
from spice_connect.notify import Announcer, Notifier, WaitWindow
from spice_connect.session import Session
from spice_connect.tunnel import localend, start
from spice_connect.tunnel.connection import Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop
from spice_connect.tunnel.ssh import Opening
from spice_connect.ui.terminal import Progress, Terminal
from spice_connect.ui.windows import Windows
from spice_connect.viewer.command import ViewerCommand

#: Seconds before each try; the last one repeats.
PAUSES = (1, 2, 4, 8, 15)
#: Seconds after the loss of a connection until we give up.
GIVE_UP = 300
#: Seconds after which a connection counts as restored. If it is lost before, the same outage goes
#: on with its growing pauses and its time limit, so that we do not try for ever.
STEADY = 30
#: How a host refuses while it boots: the VM or the broker does not run yet.
PASSING = (os.EX_UNAVAILABLE, os.EX_SOFTWARE)


class Begun(NamedTuple):
    """What there is before the session: a connection whose gate waits for an `open`.

    `answered` is called at the session's end, if a spicetunnel answered on the host.
    """

    janitor: Janitor | None = None
    connection: Connection | None = None
    answered: Callable[[], None] = lambda: None
    windows: Windows | None = None  # for a user without a terminal


def open_vm(  # noqa: PLR0913 - the parts that meet here
    config: Config,
    opening: Opening,
    terminal: Terminal,
    viewer_command: ViewerCommand | None,
    *,
    reconnect: bool,
    begun: Begun = Begun(),  # noqa: B008 - it cannot change
) -> None:
    """Run a session until it ends; return if the user ended it.

    Without a viewer command, no viewer is started. Raises ClientError for all other ends.
    """
    with (
        contextlib.nullcontext(begun.janitor)
        if begun.janitor
        else Janitor(localend.parent_directory())
    ) as janitor:
        window = WaitWindow(janitor, begun.windows) if begun.windows else None
        announcer = Announcer(terminal, Notifier(janitor, opening.vm), window)
        connections = Connections(janitor, config, viewer_command, announcer, begun.connection)
        try:
            connections.run(opening._replace(keep=reconnect), reconnect=reconnect)
        except ClientError as error:
            if connections.accepted:  # before that, the user still looks at the terminal
                announcer.last(error)
            if isinstance(error, ServerError):
                begun.answered()
                error.hint = _did_you_mean(config, opening.vm, error) or error.hint
            raise
        finally:
            if connections.accepted:
                files.add_vm(config.host, opening.vm)
                begun.answered()


def _did_you_mean(config: Config, vm: str, refusal: ServerError) -> str:
    """A better hint for a name that the server does not give to this user; empty for none."""
    near = files.near_name(config.host, vm) if refusal.exit_code == os.EX_NOPERM else ""
    return f"did you mean '{near}'?" if near else ""


class Outage:
    """The time from the loss of a connection until a new one counts as restored."""

    def __init__(self) -> None:
        self._end = time.monotonic() + GIVE_UP
        self._pauses = itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))
        self.refusal: ServerError | None = None  # the last one

    def left(self) -> float:
        """Seconds until we give up."""
        return self._end - time.monotonic()

    def pause(self) -> float:
        """Seconds before the next try."""
        return min(next(self._pauses), max(self.left(), 0))


class Connections:
    """The connections of one session. `accepted`: the server has let us in at least once."""

    def __init__(
        self,
        janitor: Janitor,
        config: Config,
        viewer_command: ViewerCommand | None,
        announcer: Announcer,
        begun: Connection | None = None,
    ) -> None:
        self._begun = begun  # for the first session
        self._janitor, self._config, self._viewer_command = janitor, config, viewer_command
        self._announcer = announcer
        self._bounds = Bounds()
        self._outage: Outage | None = None  # the latest
        self.accepted = False

    def run(self, opening: Opening, *, reconnect: bool) -> None:
        """Returns if the user ended the session; raises ClientError for all other ends."""
        while True:
            session, begun = self._connect(opening), time.monotonic()
            try:
                session.run(self._outage.left() if self._outage else None)
                return
            except LostError as loss:
                if not reconnect or not (session.accepted or self._outage):
                    raise
                self._tell_loss(session, loss)
            except ServerError as refusal:
                if not self._outage or session.accepted or refusal.exit_code not in PASSING:
                    raise
                self._tell_refusal(self._outage, refusal)
            finally:
                self.accepted |= session.accepted
            session.close()
            if session.ready:
                opening = opening.again(session.ready.session)
            self._pause(self._outage_after(session, time.monotonic() - begun))

    def _connect(self, opening: Opening) -> Session:
        again, terminal = self._outage is not None, self._announcer.terminal
        progress = Progress(terminal, self._config.place, opening.vm)
        progress.begin()
        to_host, self._begun = self._begun, None
        if to_host:
            to_host.say(opening.words())
        else:
            to_host = start.to_open(
                *(self._janitor, self._config, opening, terminal, progress),
                retry=again,
                bounds=self._bounds,
            )
        greeting = f"connected to {self._config.place} again" if again else ""
        return Session(
            self._janitor,
            to_host,
            opening.vm,
            self._viewer_command,
            self._announcer,
            progress,
            self._bounds,
            greeting,
        )

    def _tell_loss(self, session: Session, loss: LostError) -> None:
        if session.accepted:  # a failed try is not reported
            self._announcer.tell(f"{loss.reason}; connecting again", "Ctrl-C ends the trying")

    def _tell_refusal(self, outage: Outage, refusal: ServerError) -> None:
        if str(refusal) != str(outage.refusal):  # report each refusal once
            self._announcer.tell(f"{refusal.reason}; trying again", "Ctrl-C ends the trying")
        outage.refusal = refusal

    def _outage_after(self, session: Session, seconds: float) -> Outage:
        if self._outage is None or (session.accepted and seconds > STEADY):
            self._outage = Outage()
        return self._outage

    def _pause(self, outage: Outage) -> None:
        """Wait for the next try. Raises ClientError if it is time to give up."""
        self._announcer.terminal.show(f"waiting to connect to {self._config.place} again")
        with contextlib.closing(Loop[NoReturn](self._janitor)) as loop:
            loop.next(time.monotonic() + outage.pause())
        if outage.left() <= 0 and outage.refusal:
            raise outage.refusal
        if outage.left() <= 0:
            host, minutes = self._config.place, f"{GIVE_UP // 60} minutes"
            raise LostError(
                f"the connection to {host} was lost, and did not come back in {minutes}",
                f"start spice-connect again when {host} can be reached",
            )
