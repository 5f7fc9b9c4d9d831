"""One connection: ssh holds the tunnel, the viewer shows the screen, for as long as both live.

Within one connection the VM may restart: its viewer ends then, and gets a successor.
"""

from spice_connect.errors import ClientError
from spice_connect.notify import Announcer
from spice_connect.tunnel import talk
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Link, Said
from spice_connect.tunnel.loop import Loop
from spice_connect.tunnel.nearend import NearEnd
from spice_connect.ui.progress import Progress
from spice_connect.viewer.look import Look
from spice_connect.viewer.process import Connection, Viewer

#: remote-viewer ends with status 0, some 20 ms after its VM or its tunnel has gone. The gate's word
#: on a kept VM (`waiting`) is there by then; ssh's end, and the broker's word, may come later.
REASON_GRACE = 0.5


class Session:
    def __init__(  # noqa: PLR0913, PLR0917 - the parts that meet here
        self,
        janitor: Janitor,
        link: Link,
        vm: str,
        look: Look | None,
        announcer: Announcer,
        progress: Progress,
        greeting: str = "",
    ) -> None:
        """`greeting`: what to say when the VM can be seen; nothing where it was to be expected.

        Without a look, no viewer.
        """
        self._janitor, self._link = janitor, link
        self._announcer, self._progress = announcer, progress
        self._vm, self._look = vm, look
        self._greeting = greeting
        self._loop = Loop(janitor)
        self._viewer: Viewer | None = None
        self._failure: ClientError | None = None
        self._ready: talk.Ready | None = None
        self._waiting = self._ssh_ended = False
        link.watch(self._loop, self._on_event, self._on_ssh_end)

    @property
    def ready(self) -> talk.Ready | None:
        """What the server said last when the VM could be seen; None: it never could."""
        return self._ready

    @property
    def accepted(self) -> bool:
        """Whether the server let us in, if only to wait for the VM."""
        return self._ready is not None or self._waiting

    def run(self, patience: float | None = None) -> None:
        """Until it is over; returns if the person ended it.

        `patience`: how many seconds the server may take for its first word.
        """
        if patience is not None:
            self._end_unless_more_is_said(self._link.silence(), patience)
        self._loop.run()
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """End viewer and ssh; else the janitor does, when the whole program ends."""
        self._close_viewer()
        self._link.close()
        self._loop.close()

    def _on_event(self, event: Said) -> None:
        match event:
            case talk.Ready():
                self._on_ready(event)
            case talk.Waiting(reason, hint):
                self._progress.end()
                # A viewer that ends now, or has just ended, does so for want of its VM.
                self._waiting, self._greeting = True, f"'{self._vm}' is ready"
                self._go_on()
                if reason:
                    self._announcer.tell(reason, hint)
            case talk.Notice(reason, hint):
                self._announcer.tell(reason, hint, urgent=True)

    def _on_ready(self, ready: talk.Ready) -> None:
        greeting, self._greeting = self._greeting, ""
        if greeting:
            self._announcer.terminal.inform(greeting)
        if self._waiting:  # it shows what is no more, if it is still there
            self._close_viewer()
        self._ready, self._waiting = ready, False
        self._go_on()
        self._show(ready)

    def _show(self, ready: talk.Ready) -> None:
        near = self._link.near_end()
        if not self._look:
            self._progress.end()
            self._announcer.terminal.result(str(near))
        elif not self._viewer:
            self._open_viewer(self._look, near, ready)

    def _open_viewer(self, look: Look, near: NearEnd, ready: talk.Ready) -> None:
        title = f"{ready.title} ({self._vm})" if ready.title else self._vm
        self._progress.open_viewer()
        to = Connection(near, title, ready.password)
        self._viewer = Viewer(self._janitor, look, to, self._announcer.terminal)
        self._viewer.watch(self._loop, self._on_viewer_end)

    def _on_viewer_end(self) -> None:
        failure = self._viewer.failure() if self._viewer else None
        if failure:
            failure = self._link.forwarding_refused() or failure
        self._close_viewer()
        if not (self._waiting or self._ssh_ended):
            self._end_unless_more_is_said(failure, REASON_GRACE)

    def _close_viewer(self) -> None:
        self._progress.end()
        if self._viewer:
            self._viewer.close()
            self._viewer = None

    def _on_ssh_end(self) -> None:
        # A viewer that ended just before did so for want of its tunnel.
        self._ssh_ended, self._failure = True, self._link.loss()
        self._loop.stop()

    def _end_unless_more_is_said(self, failure: ClientError | None, seconds: float) -> None:
        self._failure = failure
        self._loop.stop(seconds)

    def _go_on(self) -> None:
        self._failure = None
        self._loop.go_on()
