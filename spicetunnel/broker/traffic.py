"""How much moved in a session, and how fast: the gate's word, for the admin's eyes only."""

import time
from collections.abc import Iterable

from spicetunnel.broker.channels import Channel

STALE = 10.0  # seconds after which the last rate says nothing of now


class Traffic:
    """`up` and `down` are bytes since the session began, rates bytes a second."""

    def __init__(self) -> None:
        self.up = self.down = 0
        self._closed_up = self._closed_down = 0
        self._rates = (0.0, 0.0)
        self._sampled = time.monotonic()

    @property
    def rates(self) -> tuple[float, float]:
        """Up and down, as of the last two samples."""
        return self._rates if time.monotonic() - self._sampled < STALE else (0.0, 0.0)

    def close(self, channel: Channel) -> None:
        """Keep the channel's final counts: it is no longer among those that are sampled."""
        self._closed_up += channel.up
        self._closed_down += channel.down
        self.up, self.down = max(self.up, self._closed_up), max(self.down, self._closed_down)

    def sample(self, channels: Iterable[Channel]) -> None:
        living = list(channels)
        up = self._closed_up + sum(each.up for each in living)
        down = self._closed_down + sum(each.down for each in living)
        now = time.monotonic()
        seconds = max(now - self._sampled, 0.001)
        self._rates = max(up - self.up, 0) / seconds, max(down - self.down, 0) / seconds
        self.up, self.down, self._sampled = up, down, now
