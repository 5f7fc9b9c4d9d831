"""One connection: ssh holds the tunnel, the viewer shows the screen, for as long as both live.

Within one connection the VM may restart: its viewer ends then, and gets a successor.
"""

import time

from spice_connect.errors import ClientError
from spice_connect.notify import Announcer
from spice_connect.tunnel import protocol
from spice_connect.tunnel.connection import Closed, Connection, Event, Failed
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.loop import Loop, TimedOut
from spice_connect.ui.terminal import Progress
from spice_connect.viewer.command import ViewerCommand
from spice_connect.viewer.process import Console, Viewer, ViewerEnded

#: remote-viewer ends with status 0, some 20 ms after its VM or its tunnel has gone. The gate's word
#: on a kept VM (`waiting`) is there by then; ssh's end, and the broker's word, may come later.
REASON_GRACE = 0.5


class Session:
    """`ready`: what the server said last when the VM could be seen; None: it never could."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        connection: Connection,
        vm: str,
        viewer_command: ViewerCommand | None,
        announcer: Announcer,
        progress: Progress,
        greeting: str = "",
    ) -> None:
        """`greeting`: what to say when the VM can be seen; nothing where it was to be expected.

        Without a viewer command, no viewer.
        """
        self._janitor, self._connection = janitor, connection
        self._announcer, self._progress = announcer, progress
        self._vm, self._viewer_command = vm, viewer_command
        self._greeting = greeting
        self.ready: protocol.Ready | None = None
        self._waiting = False  # for a VM that is not there, or not any more
        self._viewer: Viewer | None = None
        # The session is over at the deadline, unless the server says more of the VM.
        self._deadline: float | None = None
        self._failure: ClientError | None = None  # why it is over then; None: the person ended it
        self._loop = Loop[Event | ViewerEnded](janitor)
        self._loop.watch(connection)

    @property
    def accepted(self) -> bool:
        """Whether the server let us in, if only to wait for the VM."""
        return self.ready is not None or self._waiting

    def run(self, patience: float | None = None) -> None:
        """Until it is over; returns if the person ended it, and raises ClientError if not.

        `patience`: how many seconds the server may take for its first word.
        """
        if patience is not None:
            self._end_unless_more_is_said(self._connection.silence(), patience)
        while True:
            match self._loop.next(self._deadline):
                case protocol.Ready() as ready:
                    self._on_ready(ready)
                case protocol.Waiting(reason, hint):
                    self._on_waiting(reason, hint)
                case protocol.Notice(reason, hint):
                    self._announcer.tell(reason, hint, urgent=True)
                case ViewerEnded(failure):
                    self._on_viewer_end(failure)
                case Failed(error) | Closed(error):
                    raise error
                case TimedOut():
                    return self._end()

    def close(self) -> None:
        """End viewer and ssh; else the janitor does, when the whole program ends."""
        self._close_viewer()
        self._connection.close()
        self._loop.close()

    def _end(self) -> None:
        if self._failure:
            raise self._failure

    def _on_ready(self, ready: protocol.Ready) -> None:
        greeting, self._greeting = self._greeting, ""
        if greeting:
            self._announcer.terminal.inform(greeting)
        if self._waiting:  # it shows what is no more, if it is still there
            self._close_viewer()
        self.ready, self._waiting, self._deadline = ready, False, None
        if not self._viewer_command:
            self._progress.end()
            self._announcer.terminal.result(str(self._connection.local_end()))
        elif not self._viewer:
            self._viewer = self._open_viewer(self._viewer_command, ready)
            self._loop.watch(self._viewer)

    def _open_viewer(self, viewer_command: ViewerCommand, ready: protocol.Ready) -> Viewer:
        local_end = self._connection.local_end()
        title = f"{ready.title} ({self._vm})" if ready.title else self._vm
        self._progress.open_viewer()
        to = Console(local_end, title, ready.password)
        return Viewer(self._janitor, viewer_command, to, self._announcer.terminal)

    def _on_waiting(self, reason: str, hint: str) -> None:
        self._progress.end()
        # A viewer that ends now, or has just ended, does so for want of its VM.
        self._waiting, self._deadline = True, None
        self._greeting = f"'{self._vm}' is ready"
        if reason:
            self._announcer.tell(reason, hint)

    def _on_viewer_end(self, failure: ClientError | None) -> None:
        self._close_viewer()
        if failure:
            failure = self._connection.forwarding_refused() or failure
        if not self._waiting:
            # ssh, or the server, may be about to say that it ended for want of its tunnel or VM.
            self._end_unless_more_is_said(failure, REASON_GRACE)

    def _close_viewer(self) -> None:
        self._progress.end()
        if self._viewer:
            self._loop.forget(self._viewer)
            self._viewer.close()
            self._viewer = None

    def _end_unless_more_is_said(self, failure: ClientError | None, seconds: float) -> None:
        self._failure, self._deadline = failure, time.monotonic() + seconds
