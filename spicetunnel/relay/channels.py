"""Moves the bytes of a session's channels between viewer and VM, in one epoll loop.

Each channel has two flows, one per direction. A flow holds at most one chunk that its sink did not
take; while it does, its source is not read: a stalled viewer costs a chunk and stops nobody else.
"""

import mmap
import select
import socket
from collections.abc import Callable

CHUNK = 256 * 1024  # bytes: half of it costs 5 to 10 % of bulk, and saves 0.15 MB a session

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR
# epoll reports a hang-up even when nothing is asked of it: while an end waits for the other, a dead
# peer would spin the loop. Edge-triggered, it is told once.
_HANG_UP_ONCE = select.EPOLLET


class Flow:
    """One direction of a channel: bytes read from `source` go to `sink`, in order, none dropped.

    `on_end` is called with the end that closed, before the other one can see it. It returns
    whether the other one may see it now; if not, `pass_on` does so later.
    """

    __slots__ = ("_shut", "done", "moved", "on_end", "pending", "sink", "source")

    def __init__(
        self, source: socket.socket, sink: socket.socket, on_end: Callable[[socket.socket], bool]
    ) -> None:
        self.source = source
        self.sink = sink
        self.on_end = on_end
        self.pending = memoryview(b"")
        self.moved = 0
        self.done = False
        self._shut = (sink, socket.SHUT_WR)

    @property
    def wants_read(self) -> bool:
        return not self.done and not self.pending

    def pump(self, buffer: memoryview) -> None:
        """Read once from the source and pass it on; at its end, end the sink's input."""
        try:
            count = self.source.recv_into(buffer)
        except BlockingIOError:
            return
        except ConnectionResetError:
            count = 0  # the kernel reports it only after all data was read
        if count == 0:
            self._end(self.source, (self.sink, socket.SHUT_WR))
        else:
            self._push(buffer[:count])

    def flush(self) -> None:
        """Pass on what the sink did not take before."""
        if self.pending:
            self._push(self.pending)

    def abandon(self) -> None:
        """The sink is gone: drop what is left for it."""
        self.pending = memoryview(b"")
        self._end(self.sink, (self.source, socket.SHUT_RD))  # so that its writer learns of it

    def pass_on(self) -> None:
        """Let the other end see that this flow is over."""
        end, how = self._shut
        try:
            end.shutdown(how)
        except OSError:
            pass  # it is gone as well

    def _end(self, closed: socket.socket, shut: tuple[socket.socket, int]) -> None:
        self.done = True
        self._shut = shut
        if self.on_end(closed):
            self.pass_on()

    def _push(self, data: memoryview) -> None:
        try:
            sent = self.sink.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self.abandon()
            return
        self.moved += sent
        rest = data[sent:]
        if data is self.pending or not rest:
            self.pending = rest
        else:
            self.pending = memoryview(bytes(rest))  # the buffer is shared by all flows


class Channel:
    """One SPICE connection: the viewer's end, the VM's end, and the flows between.

    With `hold`, the viewer does not see that its VM has closed before `release`: somebody must be
    told first.
    """

    __slots__ = ("down", "ended_by", "hold", "number", "up", "viewer", "vm")

    def __init__(
        self, number: int, viewer: socket.socket, vm: socket.socket, *, hold: bool = False
    ) -> None:
        self.number = number
        self.viewer = viewer
        self.vm = vm
        self.hold = hold
        self.up = Flow(viewer, vm, self._note_end)
        self.down = Flow(vm, viewer, self._note_end)
        self.ended_by = ""
        for end in (viewer, vm):
            end.setblocking(False)

    @property
    def is_held(self) -> bool:
        """Whether the VM has closed, and the viewer may not see it yet."""
        return self.hold and self.ended_by == "vm"

    @property
    def done(self) -> bool:
        return self.up.done and self.down.done and not self.is_held

    def release(self) -> None:
        """Let the viewer see that its VM has closed."""
        self.hold = False
        for flow in (self.up, self.down):
            if flow.done:
                flow.pass_on()

    def flow_from(self, end: socket.socket) -> Flow:
        return self.up if end is self.viewer else self.down

    def flow_to(self, end: socket.socket) -> Flow:
        return self.down if end is self.viewer else self.up

    def serve(self, end: socket.socket, events: int, buffer: memoryview) -> None:
        """Do what epoll said `end` is ready for."""
        outward, inward = self.flow_to(end), self.flow_from(end)
        if events & _GONE:
            if not outward.done:
                outward.abandon()
        elif events & _WRITE:
            outward.flush()
        if inward.wants_read and events & (_READ | _GONE):
            inward.pump(buffer)

    def wanted(self, end: socket.socket) -> int:
        """The epoll events `end` must be watched for."""
        read = _READ if self.flow_from(end).wants_read else 0
        write = _WRITE if self.flow_to(end).pending else 0
        return read | write or _HANG_UP_ONCE

    def close(self) -> None:
        self.viewer.close()
        self.vm.close()

    def _note_end(self, end: socket.socket) -> bool:
        """Whether the other end may see it now."""
        self.ended_by = self.ended_by or ("viewer" if end is self.viewer else "vm")
        return not self.is_held


class Channels:
    """All channels of a session on one epoll, which the session shares for its own descriptors."""

    def __init__(self, poller: select.epoll) -> None:
        self._poller = poller
        # Private pages that are there when they are used: a bytearray would be written at once.
        self._buffer = memoryview(mmap.mmap(-1, CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._ends: dict[int, tuple[Channel, socket.socket]] = {}
        self._watched: dict[int, int] = {}
        self.by_number: dict[int, Channel] = {}

    def add(self, channel: Channel) -> None:
        self.by_number[channel.number] = channel
        for end in (channel.viewer, channel.vm):
            self._ends[end.fileno()] = (channel, end)
            self._watched[end.fileno()] = channel.wanted(end)
            self._poller.register(end, channel.wanted(end))

    def serve(self, fd: int, events: int) -> Channel | None:
        """Handle one epoll event, and close the channel if this ended it.

        Returns the channel; None for a descriptor that an earlier event of the same round closed.
        """
        if fd not in self._ends:
            return None
        channel, end = self._ends[fd]
        channel.serve(end, events, self._buffer)
        self.settle(channel)
        return channel

    def settle(self, channel: Channel) -> None:
        """Close the channel if it is over; else watch for what it wants next."""
        if channel.done:
            self.remove(channel)
            return
        for end in (channel.viewer, channel.vm):
            wanted = channel.wanted(end)
            if self._watched[end.fileno()] != wanted:
                self._poller.modify(end, wanted)
                self._watched[end.fileno()] = wanted

    def remove(self, channel: Channel) -> None:
        for end in (channel.viewer, channel.vm):
            self._poller.unregister(end)
            del self._ends[end.fileno()], self._watched[end.fileno()]
        del self.by_number[channel.number]
        channel.close()
