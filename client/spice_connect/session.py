"""One session: ssh holds the tunnel, the viewer shows the screen, whichever ends first ends it."""

import os
import stat
from collections.abc import Sequence

from spice_connect import ssh, talk, workdir
from spice_connect.config import Config
from spice_connect.errors import ClientError, UnavailableError
from spice_connect.janitor import Janitor
from spice_connect.link import Link
from spice_connect.loop import Loop
from spice_connect.terminal import Terminal
from spice_connect.viewer import Viewer, check

#: remote-viewer ends with status 0, 20 ms after its VM has gone. If the server has a reason for
#: the end, it is on its way.
REASON_GRACE = 0.2


def open_vm(
    config: Config, vm: str, terminal: Terminal, *, take_over: bool, with_viewer: bool
) -> None:
    """Until the session is over; returns if the person ended it."""
    viewer = config.viewer if with_viewer else ()
    if viewer:
        check(viewer)
    with Janitor(workdir.base()) as janitor:
        local = workdir.socket_path(janitor.directory)
        argv = ssh.open_command(config, vm, local=local, take_over=take_over)
        link = Link(janitor, argv, config.host, terminal)
        Session(janitor, link, vm, viewer, terminal).run()


class Session:
    def __init__(
        self, janitor: Janitor, link: Link, vm: str, viewer: Sequence[str], terminal: Terminal
    ) -> None:
        self._janitor, self._link, self._terminal = janitor, link, terminal
        self._vm, self._viewer_command = vm, viewer
        self._loop = Loop(janitor)
        self._viewer: Viewer | None = None
        self._failure: ClientError | None = None
        self._ready = self._ending = False
        link.watch(self._loop, self._on_event, self._on_ssh_end)

    def run(self) -> None:
        self._loop.run()
        if self._failure:
            raise self._failure

    def _on_event(self, event: talk.Ready | talk.Vms) -> None:
        if not isinstance(event, talk.Ready) or self._ready:
            return
        self._ready = True
        path = workdir.socket_path(self._janitor.directory)
        _check_socket(path)
        if self._viewer_command:
            self._open_viewer(f"{event.title} ({self._vm})" if event.title else self._vm)
        else:
            self._terminal.result(path)

    def _open_viewer(self, title: str) -> None:
        self._viewer = Viewer(self._janitor, self._viewer_command, title, self._terminal)
        self._viewer.watch(self._loop, self._on_viewer_end)

    def _on_viewer_end(self) -> None:
        if self._viewer:
            self._end(self._viewer.failure(), REASON_GRACE)

    def _on_ssh_end(self) -> None:
        self._end(self._link.loss(), 0)

    def _end(self, failure: ClientError | None, grace: float) -> None:
        """The first end is the cause; what ends after it follows from it."""
        if not self._ending:
            self._ending, self._failure = True, failure
            self._loop.stop(grace)


def _check_socket(path: str) -> None:
    # ssh listens before it asks the server to run anything, or has said why it cannot.
    try:
        listening = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        listening = False
    if not listening:
        raise UnavailableError("ssh did not open the tunnel's end here")
