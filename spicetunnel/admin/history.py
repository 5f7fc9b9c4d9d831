"""The audit log as visits: each session's lines put together, every other line as it is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spicetunnel.admin.auditlog import Entry

RESTARTED = "the server was restarted"

#: The events shown besides visits. `_ALL` are those shown with --all.
_NOTABLE = frozenset({"open", "kick", "map", "grant", "revoke", "grant-end"})
_ALL = _NOTABLE | {"start", "stop", "fault", "refused", "command", "grants"}


@dataclass(frozen=True, slots=True)
class Visit:
    """One session. `end` is None if the log has none: it is still open."""

    session: str
    user: str
    vm: str
    client: str
    via: str
    begin: datetime
    is_begin_known: bool = True  # False if the log begins later
    end: datetime | None = None
    up: float | None = None
    down: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at one moment."""

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
    """What to show. All fields that are given must match."""

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
        """Whether the item is a visit that was open at the moment `at`."""
        at = self.at
        if at is None or not isinstance(item, Visit):
            return False
        return item.begin <= at and (item.end is None or at < item.end)

    def _happened(self, item: Item) -> bool:
        """Whether the item falls, at least in part, between `since` and `until`."""
        if isinstance(item, Event) and item.entry.event not in (
            _ALL if self.everything else _NOTABLE
        ):
            return False
        begins_before = self.until is None or item.begin < self.until
        return begins_before and (self.since is None or item.end is None or item.end >= self.since)


class History:
    """Makes items of entries, ordered by their ends. Holds only visits that have not ended."""

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
        """End what was open if the server was restarted. (A restart of the broker ends nothing.)"""
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
    """The visit with its end. If the log begins later, the end says how long it lasted."""
    if visit is None or not visit.is_begin_known:
        lasted = timedelta(seconds=min(entry.number("seconds") or 0, 10**9))
        visit = _visit(entry, entry.time - lasted)
    up, down = entry.number("bytes_up"), entry.number("bytes_down")
    return replace(visit, end=entry.time, up=up, down=down, reason=entry.word("reason"))
