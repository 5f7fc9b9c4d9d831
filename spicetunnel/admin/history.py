"""What happened, out of the audit log: visits put together, and the rest as it stands."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spicetunnel.admin.auditlog import Entry

RESTARTED = "the server was restarted"

#: What is told besides visits; the others only where all is asked for.
_NOTABLE = frozenset({"open", "kick", "map", "grant", "revoke", "grant-end"})
_ALL = _NOTABLE | {"start", "stop", "fault", "refused", "command", "grants"}


@dataclass(frozen=True, slots=True)
class Visit:
    """One session. `end` is None where it has none in the log: they are still there."""

    session: str
    user: str
    vm: str
    client: str
    via: str
    begin: datetime
    is_begin_known: bool = True  # False where the log begins after it
    end: datetime | None = None
    up: float | None = None
    down: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something of one moment."""

    entry: Entry

    @property
    def begin(self) -> datetime:
        return self.entry.time

    @property
    def end(self) -> datetime:
        return self.entry.time

    @property
    def user(self) -> str:
        return self.entry.word("user")

    @property
    def vm(self) -> str:
        return self.entry.word("vm")


Item = Visit | Event


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: all that is given must be so."""

    user: str | None = None
    vm: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    at: datetime | None = None
    everything: bool = False

    def is_about(self, item: Item) -> bool:
        return (
            self.user in {None, item.user}
            and self.vm in {None, item.vm}
            and (self._was_there(item) if self.at else self._happened(item))
        )

    def _was_there(self, item: Item) -> bool:
        """At the moment `at`."""
        at = self.at
        if at is None or not isinstance(item, Visit):
            return False
        return item.begin <= at and (item.end is None or at < item.end)

    def _happened(self, item: Item) -> bool:
        """At least in part, between `since` and `until`."""
        if isinstance(item, Event) and item.entry.event not in (
            _ALL if self.everything else _NOTABLE
        ):
            return False
        begins_before = self.until is None or item.begin < self.until
        return begins_before and (self.since is None or item.end is None or item.end >= self.since)


class History:
    """In the order of their ends. Keeps no more than the visits that have not ended."""

    def __init__(self) -> None:
        self._there: dict[str, Visit] = {}
        self._boot = ""

    def of(self, entries: Iterable[Entry]) -> Iterator[Item]:
        for entry in entries:
            yield from self._items(entry)
        yield from sorted(self._there.values(), key=lambda visit: visit.begin)

    def _items(self, entry: Entry) -> Iterator[Item]:
        session = entry.word("session")
        if entry.event == "open" and entry.word("decision") == "allow":
            self._there[session] = _visit(entry, entry.time)
        elif entry.event == "resume" and session not in self._there:
            self._there[session] = replace(_visit(entry, entry.time), is_begin_known=False)
        elif entry.event == "session-end":
            yield _ended(self._there.pop(session, None), entry)
        else:
            if entry.event == "start":
                yield from self._started(entry)
            yield Event(entry)

    def _started(self, entry: Entry) -> Iterator[Visit]:
        """A session outlives the broker, and never the boot."""
        boot, before = entry.word("boot"), self._boot
        self._boot = boot or before
        if boot and before and boot != before:
            for visit in self._there.values():
                yield replace(visit, end=entry.time, reason=RESTARTED)
            self._there.clear()


def _visit(entry: Entry, begin: datetime) -> Visit:
    session, user, vm, client, via = map(entry.word, ("session", "user", "vm", "client", "via"))
    return Visit(session, user, vm, client, via, begin)


def _ended(visit: Visit | None, entry: Entry) -> Visit:
    """Where the log begins after the visit, its end still tells how long it was."""
    if visit is None or not visit.is_begin_known:
        lasted = timedelta(seconds=min(entry.number("seconds") or 0, 10**9))
        visit = _visit(entry, entry.time - lasted)
    up, down = entry.number("bytes_up"), entry.number("bytes_down")
    return replace(visit, end=entry.time, up=up, down=down, reason=entry.word("reason"))
