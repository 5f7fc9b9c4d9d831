"""The map as pydantic models: VMs and their grants."""

from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from spicetunnel.policy.fields import (
    SIDE_CHANNELS,
    Account,
    Accounts,
    AnyAccounts,
    ChannelNames,
    Count,
    DateRanges,
    Day,
    Durations,
    Everyone,
    Networks,
    PlainPath,
    Seat,
    SocketPath,
    Texts,
    Title,
    Uids,
    VmName,
    Windows,
    Zone,
    wrong,
)
from spicetunnel.policy.problems import quote
from spicetunnel.policy.schedule import Schedule, Window
from spicetunnel.policy.yamlsource import Sequence

ALL_CHANNELS = SIDE_CHANNELS | {"main"}
#: What `view-only` and `no-devices` allow. Lists of what is allowed: a channel type that we do not
#: know yet is denied.
VIEW_ONLY = frozenset({"main", "display", "cursor", "playback"})
NO_DEVICES = VIEW_ONLY | {"inputs"}
#: What a view-only person's viewer and the guest's agent may exchange in the main channel: keys of
#: `spice.agent.PURPOSES`.
VIEW_ONLY_AGENT = frozenset({"clipboard-from-vm"})
LOCALTIME = "/etc/localtime"


def _for_editors(schema: dict[str, Any]) -> None:
    """Remove what would mislead an editor: defaults, titles, and null, which no key accepts."""
    for key in schema.get("properties", {}).values():
        for word in ("default", "title"):
            key.pop(word, None)
        if {"type": "null"} in key.get("anyOf", []):
            key.update(key.pop("anyOf")[0])


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.rstrip("_").replace("_", "-"),
        json_schema_extra=_for_editors,
    )


class Who(_Strict):
    """A set of people, named in exactly one of these ways."""

    user: Accounts = ()
    group: Accounts = ()
    uid: Uids = ()
    gid: Uids = ()
    everyone: Everyone = False

    @cached_property
    def place(self) -> tuple[str, int]:
        """File and line, counted from 1; line 0 if it was not read from a file."""
        return "", 0

    @property
    def source(self) -> str:
        """`place` as FILE:LINE; empty if it was not read from a file."""
        file, line = self.place
        return f"{file}:{line}" if line else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_one_way(self)
        return self

    def includes(
        self, uid: int, user: str, groups: frozenset[str], gids: frozenset[int] = frozenset()
    ) -> bool:
        return (
            self.everyone
            or user in self.user
            or uid in self.uid
            or not groups.isdisjoint(self.group)
            or not gids.isdisjoint(self.gid)
        )


_WAYS = frozenset({"user", "group", "uid", "gid", "everyone", "people"})


def _check_one_way(who: Who) -> None:
    ways = who.model_fields_set & _WAYS
    if len(ways) == 1:
        return
    if not ways:
        raise wrong("grant_nobody", "names nobody", "add 'user: NAME' or 'group: NAME'")
    message = f"names people by {' and by '.join(quote(way) for way in sorted(ways))}"
    raise wrong("grant_both", message, "make each an entry of its own")


def _give_places(whos: tuple[Who, ...], written: Any, info: ValidationInfo) -> None:
    """Tell each where it stands: the line from the reader's list, the file from the context."""
    if isinstance(written, Sequence):
        for who, mark in zip(whos, written.marks, strict=True):
            # The model is frozen, so the cached property is set where Python would cache it.
            who.__dict__["place"] = (info.context, mark.line + 1)


_People = dict[str, tuple[Who, ...]]


def _people_placed(
    written: Any, validated: ValidatorFunctionWrapHandler, info: ValidationInfo
) -> _People:
    people: _People = validated(written)
    for name, whos in people.items():
        _give_places(whos, written[name], info)
    return people


class Channels(_Strict):
    """SPICE channels by name: the denied ones, or the only ones allowed besides main."""

    deny: ChannelNames = ()
    allow: ChannelNames = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if len(self.model_fields_set) != 1:
            have = "has both 'allow' and 'deny'" if self.model_fields_set else "is empty"
            raise wrong("channels", have, "write 'allow' or 'deny'; one of them says it all")
        return self

    @property
    def allowed(self) -> frozenset[str] | None:
        """None: every channel, those of unknown types included."""
        if "allow" in self.model_fields_set:
            return frozenset(self.allow) | {"main"}
        return ALL_CHANNELS - frozenset(self.deny) if self.deny else None


class Grant(Who):
    """One line of a VM's `allow`."""

    people: Texts = ()
    when: Windows = (Window(),)
    starts: Day = date.min
    ends: Day = date.max
    except_: DateRanges = ()
    where: Literal["console"] | None = None
    from_: Networks = ()
    take_over: bool = False
    channels: Channels | None = None
    view_only: bool = False
    no_devices: bool = False

    @cached_property
    def allowed(self) -> frozenset[str] | None:
        """The names of the SPICE channels that this grant gives.

        None: every channel, those of unknown types included.
        """
        by_name = self.channels.allowed if self.channels else None
        by_word = VIEW_ONLY if self.view_only else NO_DEVICES if self.no_devices else None
        if by_name is None or by_word is None:
            return by_word if by_name is None else by_name
        return by_name & by_word

    @property
    def agent(self) -> frozenset[str] | None:
        """What the main channel may carry between the viewer and the guest's agent.

        Keys of `spice.agent.PURPOSES`. None: everything, and nobody looks at it.
        """
        return VIEW_ONLY_AGENT if self.view_only else None

    @property
    def limits(self) -> tuple[str, ...]:
        """What it does not give, in words for its person: `view-only`, `no-devices`, `no usbredir`,
        `only display`. Empty if it gives all.
        """
        words = ["view-only"] if self.view_only else ["no-devices"] if self.no_devices else []
        if self.channels and "allow" in self.channels.model_fields_set:
            words.append(f"only {', '.join(sorted(self.channels.allow)) or 'main'}")
        elif self.channels:
            words += [f"no {name}" for name in sorted(self.channels.deny)]
        return tuple(words)

    def schedule(self, zone: ZoneInfo) -> Schedule:
        return Schedule(zone, self.when, self.starts, self.ends, self.except_)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_one_way(self)
        if self.ends < self.starts:
            raise wrong("dates", "ends before it starts", "'ends' is the last day")
        return self


class Vm(_Strict):
    title: Title = ""
    socket: SocketPath
    timezone: Zone | None = None
    seat: Seat = "exclusive"
    password_file: PlainPath = ""
    allow: tuple[Grant, ...] = ()

    @field_validator("allow", mode="wrap")
    @classmethod
    def _placed(
        cls, written: Any, validated: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Grant, ...]:
        grants: tuple[Grant, ...] = validated(written)
        _give_places(grants, written, info)
        return grants


class Limits(_Strict):
    """Limits of one person, and the channels of one session."""

    sessions_per_user: Count = 10
    channels_per_session: Count = 64  # a viewer opens about 7
    opens_per_minute: Count = 30


class VmMap(_Strict):
    timezone: Zone | None = None
    people: dict[Account, tuple[Who, ...]] = {}
    delegates: AnyAccounts = ()
    warn: Durations = (timedelta(minutes=10), timedelta(minutes=1))
    limits: Limits = Limits()
    vms: dict[VmName, Vm] = {}

    _placed = field_validator("people", mode="wrap")(_people_placed)

    def zone_of(self, vm: Vm) -> ZoneInfo:
        return vm.timezone or self._zone

    @cached_property
    def _zone(self) -> ZoneInfo:
        return self.timezone or local_zone()

    def names(
        self,
        grant: Grant,
        uid: int,
        user: str,
        groups: frozenset[str],
        gids: frozenset[int] = frozenset(),
    ) -> bool:
        """Whether the grant names this person."""
        if not grant.people:
            return grant.includes(uid, user, groups, gids)
        sets = (who for name in grant.people for who in self.people[name])
        return any(who.includes(uid, user, groups, gids) for who in sets)


class MapPart(_Strict):
    """A file of vms.d. Settings of the whole map may only be in the main file."""

    people: dict[Account, tuple[Who, ...]] = {}
    vms: dict[VmName, Vm] = {}

    _placed = field_validator("people", mode="wrap")(_people_placed)


def local_zone() -> ZoneInfo:
    """The server's own time zone, with its daylight saving time."""
    try:
        with open(LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file, "the server's local time")
    except (OSError, ValueError):
        return ZoneInfo("UTC")
