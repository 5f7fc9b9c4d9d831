"""The channels of one session: which may be opened, and how each ends."""

import socket
import time
from dataclasses import dataclass, field

from spicetunnel.broker.peers import vm_end
from spicetunnel.broker.records import ChannelRecord
from spicetunnel.spice.link import CHANNEL_TYPES, Link

KNOWN_TYPES = frozenset(CHANNEL_TYPES.values())  # what a grant can name


@dataclass(slots=True)
class Channel:
    """One SPICE connection handed to the gate; `vm` is our duplicate of the VM's end."""

    number: int
    link: Link
    vm: socket.socket
    opened: float = field(default_factory=time.monotonic)
    up: int = 0
    down: int = 0

    def record(self) -> ChannelRecord:
        link, (inode, peer_pid) = self.link, vm_end(self.vm)
        return ChannelRecord(
            self.number,
            link.connection_id,
            link.channel_type,
            link.channel_id,
            inode,
            peer_pid,
        )

    def cut(self) -> None:
        cut(self.vm)


def link_of(record: ChannelRecord) -> Link:
    return Link(record.connection_id, record.channel_type, record.channel_id)


def denies(denied: frozenset[str], link: Link) -> bool:
    """Whether a grant without these channels is one without this one."""
    # A grant that denies something can not have meant to give a type it cannot name.
    return link.type_name in denied or bool(denied and link.type_name not in KNOWN_TYPES)


def cut(vm: socket.socket) -> None:
    """End the traffic, whoever holds duplicates of the socket: the kernel does it."""
    try:
        vm.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # QEMU was quicker
