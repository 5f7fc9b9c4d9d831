"""A main channel that goes through a filter: `spice/mainfilter.py`.

The other channels do not come here: they are moved without a look.
"""

import socket
from collections.abc import Callable

from spicetunnel.common.errors import ProtocolError
from spicetunnel.common.protocol import Message, flag, number
from spicetunnel.relay.channels import Channel, Flow
from spicetunnel.spice.agent import Rules
from spicetunnel.spice.handshake import NotUnderstoodError
from spicetunnel.spice.mainfilter import MainFilter

#: Bytes read at once. A hostile end sends messages of 6 bytes; after so many of them the session's
#: other channels have their turn.
READ = 32 * 1024


class _FilteredFlow(Flow):
    """`look`: takes what was read, and returns what of it goes on."""

    __slots__ = ("_add_for_viewer", "_look")

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        on_end: Callable[[socket.socket], bool],
        look: Callable[[memoryview], bytes],
        add_for_viewer: Callable[[], None],
    ) -> None:
        super().__init__(source, sink, on_end)
        self._look = look
        self._add_for_viewer = add_for_viewer

    def pump(self, buffer: memoryview) -> None:
        super().pump(buffer[:READ])

    def add(self, data: bytes) -> None:
        """Send what the filter adds."""
        if data:
            super()._push(memoryview(data))

    def _push(self, data: memoryview) -> None:
        if data is self.pending:  # it was looked at when it came
            super()._push(data)
        else:
            self.add(self._look(data))
        self._add_for_viewer()


class FilteredChannel(Channel):
    """`refusal`: why the filter ended the channel; empty if it did not."""

    __slots__ = ("_filter", "refusal", "rules")

    down: _FilteredFlow

    def __init__(
        self,
        number: int,
        viewer: socket.socket,
        vm: socket.socket,
        rules: Rules,
        *,
        hold: bool = False,
    ) -> None:
        super().__init__(number, viewer, vm, hold=hold)
        self.rules = rules
        self.refusal = ""
        self._filter = MainFilter(rules)
        self.up = _FilteredFlow(viewer, vm, self._note_end, self._look_up, self._add_for_viewer)
        self.down = _FilteredFlow(vm, viewer, self._note_end, self._look_down, self._add_for_viewer)

    def _look_up(self, data: memoryview) -> bytes:
        return self._looked_at(self._filter.from_viewer, data)

    def _look_down(self, data: memoryview) -> bytes:
        return self._looked_at(self._filter.from_vm, data)

    def _looked_at(self, look: Callable[[memoryview], bytes], data: memoryview) -> bytes:
        try:
            return look(data)
        except NotUnderstoodError as error:
            self._refuse(str(error))
            return b""

    def _add_for_viewer(self) -> None:
        """Send the viewer what the filter has for it, unless it has to take what was before.

        So a viewer that does not read costs no memory, whatever it sends.
        """
        if not self.down.done and not self.down.pending:
            self.down.add(self._filter.for_viewer())

    def _refuse(self, reason: str) -> None:
        """End both directions; then the channel is done, and is closed."""
        self.refusal = reason
        self.ended_by = self.ended_by or "filter"
        for flow in (self.up, self.down):
            flow.done = True
            flow.pending = memoryview(b"")


def channel_of(message: Message, viewer: socket.socket, vm: socket.socket) -> Channel:
    """The channel that the broker's `channel` asks for. Raises ProtocolError.

    A rule that this relay does not know is an error: to go on without it would let all through.
    """
    which, hold = number(message, "channel"), flag(message, "hold")
    if "filter" not in message:
        return Channel(which, viewer, vm, hold=hold)
    purposes = message["filter"]
    if not isinstance(purposes, list):
        raise ProtocolError("'filter' is not a list")
    try:
        rules = Rules(purposes)
    except (TypeError, ValueError):
        raise ProtocolError("'filter' has a rule that this relay does not know") from None
    return FilteredChannel(which, viewer, vm, rules, hold=hold)


def rules_of(channel: Channel) -> list[str] | None:
    """What its filter lets pass; None without one."""
    return sorted(channel.rules.purposes) if isinstance(channel, FilteredChannel) else None
