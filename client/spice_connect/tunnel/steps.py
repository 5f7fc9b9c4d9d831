"""The steps of ssh, as its log tells them: the way it goes, the login, and a refused forwarding.

The messages are those of OpenSSH's source (sshconnect.c, sshconnect2.c, channels.c), which reports
them at any LogLevel if LogVerbose names their functions (ssh.py). An ssh that does not report them
leaves `is_reporting` false.
"""

import re

AUTHENTICATED = "Authenticated to "
PROXY = "Executing proxy command: "
#: channels.c, channel_post_port_listener, for a Unix socket too: "port -2".
FORWARDING = re.compile(r"Connection to port -?\d+ forwarding to (?P<far>\S+) port -?\d+ requested")
NEW_CHANNEL = re.compile(r"channel (?P<number>\d+): new\b")
BUILT_IN_REFUSED = "cause: forwarding-refused"  # the built-in ssh has no other forwarding
REFUSED_CHANNEL = re.compile(r"channel (?P<number>\d+): open failed: ")


class Steps:
    """`way`: the last ProxyCommand that ssh ran, which is also how it uses a jump host.

    `refusals`: how many channels of our own forwarding the server has refused. `may_be_refused`: it
    refused one that may be of another forwarding of the person's, as this ssh does not tell which.
    """

    def __init__(self, far: str) -> None:
        """`far`: the path on the server that our own forwarding goes to; empty if we have none."""
        self.far = far
        self._next_is_ours = False
        self._ours = set[int]()  # numbers of channels, which ssh gives away again
        self.is_reporting = self.is_logged_in = False
        self.refusals, self.may_be_refused = 0, False
        self.way = ""

    def hear(self, message: str) -> None:
        """Take one message of ssh's log, without its level and its place in the source."""
        if message.startswith(AUTHENTICATED):
            self.is_logged_in = True
        elif message.startswith(PROXY):
            self.way = message.removeprefix(PROXY)
        elif found := FORWARDING.match(message):
            self.is_reporting, self._next_is_ours = True, found["far"] == self.far
        elif found := NEW_CHANNEL.match(message):
            self._note(int(found["number"]))
        elif found := REFUSED_CHANNEL.match(message):
            self.may_be_refused |= not self.is_reporting
            self.refusals += int(found["number"]) in self._ours
        elif message == BUILT_IN_REFUSED:
            self.refusals += 1

    def _note(self, number: int) -> None:
        if self._next_is_ours:
            self._ours.add(number)
        else:
            self._ours.discard(number)
        self._next_is_ours = False
