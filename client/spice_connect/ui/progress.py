"""Where we are until the desktop is seen: connecting, logging in, asking, opening the viewer.

ssh says how it gets on, in its log (`LogVerbose`, see ssh.py). An ssh that does not say it, or no
ssh at all, leaves the line as it was, and the line is gone when the server has answered.
"""

from spice_connect.ui.terminal import Terminal

#: A message of ssh's that begins so, and what we are about from then on. "": ssh may write on the
#: terminal itself now (a question about the host's key and the server's banner come after the
#: first; a question of many lines may come after the second), or we are there.
SIGNS = {
    "Remote protocol version": "",
    "Authentications that can continue": "logging in to {place}",
    "Next authentication method: keyboard-interactive": "",
    "Authenticated to": "asking for {asked}",
    "Connection to port": "",  # the viewer's, into the tunnel
}


class Progress:
    def __init__(self, terminal: Terminal, place: str, asked: str) -> None:
        self._terminal = terminal
        self._names = {"place": place, "asked": asked}
        self._hears_ssh = False

    def begin(self) -> None:
        self._terminal.show("connecting to {place}".format(**self._names))

    def hear(self, message: str) -> bool:
        """One of ssh's; whether it was a sign."""
        self._hears_ssh = True
        about = next((about for sign, about in SIGNS.items() if message.startswith(sign)), None)
        if about is not None:
            self._terminal.show(about.format(**self._names))
        return about is not None

    def open_viewer(self) -> None:
        """Until ssh says that it is there; who would not be told does not begin."""
        self._terminal.show("opening the viewer" if self._hears_ssh else "")

    def end(self) -> None:
        self._terminal.show("")
