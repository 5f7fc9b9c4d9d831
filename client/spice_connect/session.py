"""One connection and its viewer: ssh holds the tunnel, the viewer shows the VM.

If the VM restarts within one connection, its viewer ends and a new one is started.
"""

import time

from spice_connect.errors import ClientError, UnavailableError
from spice_connect.flood import Bounds
from spice_connect.notify import Announcer
from spice_connect.tunnel import protocol
from spice_connect.tunnel.connection import Closed, Connection, Event, Failed, LoggedIn, Refused
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.terminal import Progress
from spice_connect.viewer.command import ViewerCommand
from spice_connect.viewer.process import Console, Viewer, ViewerEnded

#: Seconds to wait for the reason after the viewer has ended. remote-viewer ends with status 0 some
#: 20 ms after its VM or its tunnel is gone. By then the gate has said `waiting` if it keeps the
#: session; the end of ssh, and the broker's message, may come later.
REASON_GRACE = 0.5


class EndedEarlyError(UnavailableError):
    """The viewer ended, without a failure of its own, before it had shown the VM."""

    def __init__(self, vm: str, viewer_command: ViewerCommand | None) -> None:
        name = viewer_command.template[0] if viewer_command else ""
        super().__init__(
            f"the viewer {name} ended before it showed '{vm}'",
            "if it hands over to another process, it needs an option to wait for that one",
        )


class Session:
    """`ready`: the server's latest `ready`; None if there was none."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        connection: Connection,
        vm: str,
        viewer_command: ViewerCommand | None,
        announcer: Announcer,
        progress: Progress,
        bounds: Bounds,
        greeting: str = "",
    ) -> None:
        """`greeting`: the message for the next `ready`; empty for none.

        Without a viewer command, no viewer is started.
        """
        self._janitor, self._connection = janitor, connection
        self._announcer, self._progress = announcer, progress
        self._vm, self._viewer_command = vm, viewer_command
        self._greeting, self._bounds = greeting, bounds
        self.ready: protocol.Ready | None = None
        self._waiting = False  # the server waits for the VM to start
        self._attached = False  # since `ready`, the viewer got past the main channel
        self._viewer: Viewer | None = None
        # The session ends at the deadline, unless the server says `ready` or `waiting` before.
        self._deadline: float | None = None
        self._failure: ClientError | None = None  # why it ends then; None: the user ended it
        self._loop = Loop[Event | ViewerEnded](janitor)
        self._loop.watch(connection)

    @property
    def accepted(self) -> bool:
        """Whether the server has let us in, even if only to wait for the VM."""
        return self.ready is not None or self._waiting

    def run(self, patience: float | None = None) -> None:
        """Returns when the user has ended the session; raises ClientError for all other ends.

        `patience`: the seconds that the server may take for its first answer.
        """
        self._deadline = self._connection.first_word_due
        if patience is not None:
            self._limit_silence(time.monotonic() + patience)
        while True:
            match self._loop.next(self._deadline):
                case ViewerEnded(failure):
                    self._on_viewer_end(failure)
                case Failed(error) | Closed(error):
                    raise error
                case TimedOut():
                    return self._end()
                case event:
                    self._on_event(event)

    def _on_event(self, event: Event) -> None:
        match event:
            case protocol.Ready() as ready:
                self._on_ready(ready)
            case protocol.Waiting(reason, hint):
                self._on_waiting(reason, hint)
            case protocol.Notice(reason, hint):
                self._announcer.tell(reason, hint, urgent=True)
            case protocol.Attached():
                self._on_attached()
            case LoggedIn(due) if not self.accepted:
                self._limit_silence(due)
            case Refused(error) if self._is_shown_nothing:
                raise error
            case _:
                pass

    def close(self) -> None:
        """End the viewer and ssh. If this is not called, the janitor ends them."""
        self._close_viewer()
        self._connection.close()
        self._loop.close()

    def _end(self) -> None:
        if not self.accepted:
            raise self._connection.silence()
        if self._failure:
            raise self._failure

    def _limit_silence(self, due: float) -> None:
        """End the session if the server has not let us in when its first word is due."""
        self._deadline = due if self._deadline is None else min(due, self._deadline)

    @property
    def _is_shown_nothing(self) -> bool:
        """Whether no viewer has got past the VM's main channel. An old server does not tell."""
        return self.ready is not None and self.ready.tunnel != "" and not self._attached

    def _on_attached(self) -> None:
        self._attached = True
        if isinstance(self._failure, EndedEarlyError):  # it took the word a moment to come here
            self._failure = None

    def _on_ready(self, ready: protocol.Ready) -> None:
        self._connection.require_tunnel(ready)
        greeting, self._greeting = self._greeting, ""
        if greeting:
            self._announcer.terminal.inform(greeting)
        if self._waiting:  # a viewer that is left shows the VM before its restart
            self._close_viewer()
        self.ready, self._waiting, self._deadline = ready, False, None
        self._attached = bool(self._viewer) and self._attached
        self._announcer.end_wait()
        self._announcer.tell_rights(self._vm, ready.rights())
        if not self._viewer_command:
            self._progress.end()
            self._announcer.terminal.result(str(self._connection.local_end()))
        elif not self._viewer:
            self._viewer = self._open_viewer(self._viewer_command, ready)
            self._loop.watch(self._viewer)

    def _open_viewer(self, viewer_command: ViewerCommand, ready: protocol.Ready) -> Viewer:
        self._bounds.take_viewer(self._connection.host)
        local_end = self._connection.local_end()
        title = f"{ready.title} ({self._vm})" if ready.title else self._vm
        title = ", ".join([title, *ready.limits])
        self._progress.open_viewer()
        to = Console(local_end, title, ready.password)
        return Viewer(self._janitor, viewer_command, to, self._announcer.terminal)

    def _on_waiting(self, reason: str, hint: str) -> None:
        self._progress.end()
        # If the viewer ends now, or has just ended, the reason is its VM.
        self._waiting, self._deadline = True, None
        self._greeting = f"'{self._vm}' is ready"
        if reason:
            self._announcer.tell(reason, hint)
        self._announcer.wait_for(self._vm, reason)

    def _on_viewer_end(self, failure: ClientError | None) -> None:
        self._close_viewer()
        if self._is_shown_nothing and not failure:
            failure = EndedEarlyError(self._vm, self._viewer_command)
        if failure and not self._attached:
            failure = self._connection.forwarding_refused() or failure
        if not self._waiting:
            # If the tunnel or the VM is the reason, ssh or the server is about to say so.
            self._end_unless_more_is_said(failure, REASON_GRACE)

    def _close_viewer(self) -> None:
        self._progress.end()
        if self._viewer:
            self._loop.forget(self._viewer)
            self._viewer.close()
            self._viewer = None

    def _end_unless_more_is_said(self, failure: ClientError | None, seconds: float) -> None:
        self._failure, self._deadline = failure, time.monotonic() + seconds
