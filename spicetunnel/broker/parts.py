"""What it takes to begin a session, or to go on with one."""

from typing import NamedTuple

from spicetunnel.broker.audit import Audit
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.people import People
from spicetunnel.broker.records import Records
from spicetunnel.broker.seats import Seats


class Parts(NamedTuple):
    """`grace`: seconds a session may go on without a broker."""

    judge: Judge
    people: People
    seats: Seats
    lifecycle: Lifecycle
    records: Records
    audit: Audit
    grace: int
