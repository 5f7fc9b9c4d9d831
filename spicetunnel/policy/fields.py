"""The types of the map's values: how each is written, and the error if it is written wrong.

The reader (`yamlsource`) gives every scalar as text. A list of one value may be written without
brackets.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from spicetunnel.common.names import VM_NAME
from spicetunnel.policy import durations
from spicetunnel.policy.problems import near, quote
from spicetunnel.policy.schedule import WhenError, Window, parse_windows
from spicetunnel.policy.yamlsource import shown
from spicetunnel.spice.link import CHANNEL_TYPES

SIDE_CHANNELS = frozenset(CHANNEL_TYPES.values()) - {"main"}
MAX_COUNT = 250
SEATS = ("exclusive", "shared")
SOCKET_PATH_BYTES = 107  # sun_path holds 108 with its NUL

# Any name that an account database may have, LDAP and Active Directory included (`DOM\\ann`,
# `ann@example.org`, `R&D`, `Staff (Berlin)`), but for what `why_not_a_name` says.
_ACCOUNT = r"^[^\p{C}\p{Z}:,*](?:(?:[^\p{C}\p{Z}:,*]| )*[^\p{C}\p{Z}:,*])?$"
# A title is shown in terminals, logs and windows: no invisible character, and none that reverses
# the text's direction.
_PRINTABLE = r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
DateRange = tuple[date, date]  # first and last day


def wrong(kind: str, message: str, hint: str = "") -> PydanticCustomError:
    """The error for a wrong value; `message` is shown after the key's name."""
    return PydanticCustomError(kind, "{message}", {"message": message, "hint": hint})


_BY_NUMBER = "a user or group of such a name can be named by its uid or gid"
#: Why no name has this character, and a hint.
_NOT_IN_NAMES = {
    ":": ("':' separates the fields of passwd(5) and group(5)", "no account has such a name"),
    ",": ("',' separates names", f"write several as [ONE, TWO]; {_BY_NUMBER}"),
    "*": ("'*' stands for nothing but itself", "for everybody, write 'everyone: true'"),
}


def why_not_a_name(text: str) -> tuple[str, str]:
    """Why the map takes this text for nobody's name, and a hint."""
    if not text:
        return "a name has at least one character", "write a name, or remove the entry"
    unseen = next((each for each in text if not each.isprintable()), "")
    if unseen:
        return f"nobody can see the U+{ord(unseen):04X} in it", f"remove it; {_BY_NUMBER}"
    for character, words in _NOT_IN_NAMES.items():
        if character in text:
            return words
    if text != text.strip():
        return "it begins or ends with a space", f"remove the space; {_BY_NUMBER}"
    return "it has a character that few systems know", _BY_NUMBER


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _list_of(one: Callable[[Any], Any], at_least: int = 1) -> Callable[[Any], tuple[Any, ...]]:
    """A validator of lists, which reports every wrong entry."""
    several = tuple[Annotated[Any, PlainValidator(one)], ...]
    return TypeAdapter(Annotated[several, Field(min_length=at_least)]).validate_python


def _one_or_many(one: Callable[[Any], Any], at_least: int = 1) -> PlainValidator:
    """A validator of one value, or a list of them.

    A single text, the usual case, takes a short cut: a WrapValidator would prepare the list each
    time.
    """
    many = _list_of(one, at_least)
    return PlainValidator(lambda value: (one(value),) if isinstance(value, str) else many(value))


def _check_path(path: str) -> str:
    # normpath keeps two leading slashes, as POSIX wants; Linux gives them no meaning.
    normal = os.path.normpath(path).replace("//", "/")
    if not path.startswith("/"):
        hint = "begin it with '/', such as /var/lib/spicetunnel/vms/vm1.sock"
        raise wrong("path_relative", f"must be an absolute path, not {quote(path)}", hint)
    if not path.isprintable():
        hint = "remove what a terminal cannot show"
        raise wrong("path_text", f"must be printable text, not {quote(path)}", hint)
    if path != normal:
        message = f"must be a path without detours, not {quote(path)}"
        raise wrong("path_detour", message, f"write {quote(normal)}")
    return path


def _check_socket(path: str) -> str:
    _check_path(path)
    if len(path.encode()) > SOCKET_PATH_BYTES:
        raise wrong(
            "socket_long", "is longer than 107 bytes", "no Unix socket's path can be longer"
        )
    return path


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (OSError, ValueError, TypeError, ZoneInfoNotFoundError):
        hint = (
            isinstance(value, str) and _meant_zone(value)
        ) or "write it like Europe/Berlin or UTC"
        raise wrong("zone", f"must be a time zone, not {shown(value)}", hint) from None


_zones = lru_cache(maxsize=1)(available_timezones)  # it opens hundreds of files


def _meant_zone(name: str) -> str:
    """A hint for `Berlin`, `europe/berlin` and `Europe/Belrin`; empty if no zone is like that."""
    wanted = name.lower().replace(" ", "_")
    for zone in sorted(_zones() - {"localtime"}):
        if wanted in {zone.lower(), zone.lower().rpartition("/")[2]}:
            return f"did you mean {quote(zone)}?"
    return near(name, _zones() - {"localtime"}, cutoff=0.8)


@lru_cache(maxsize=4096)
def _windows_of(text: str) -> tuple[Window, ...]:
    hint = "write it like 'Mon-Fri 17:00-22:00', or a list of such"
    try:
        return parse_windows(text)
    except WhenError as error:
        raise wrong("when", str(error), error.hint or hint) from None


def _windows(value: Any) -> tuple[Window, ...]:
    if isinstance(value, str):
        return _windows_of(value)
    return tuple(chain.from_iterable(_windows_listed(value)))


def _windows_in_list(value: Any) -> tuple[Window, ...]:
    if not isinstance(value, str):
        hint = "write each window as text: 'Mon-Fri 17:00-22:00'"
        raise wrong("when", f"must be text, not {shown(value)}", hint)
    return _windows_of(value)


_windows_listed = _list_of(_windows_in_list)


def _day(value: Any) -> date:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            return date.fromisoformat(value)
    except (TypeError, ValueError):
        pass
    message = f"must be a date, not {shown(value)}"
    raise wrong("date", message, "write it like 2026-12-24")


def _date_range(value: Any) -> DateRange:
    hint = "write it like 2026-12-24, or 2026-12-24..2027-01-06"
    if not isinstance(value, str):
        raise wrong("dates", f"must be a date, or two, not {shown(value)}", hint)
    first, dots, last = value.partition("..")
    begin, end = _day(first), _day(last if dots else first)
    if end < begin:
        raise wrong("dates", f"ends before it begins: {quote(value)}", hint)
    return begin, end


def _network(value: Any) -> Network:
    """A network in CIDR notation, or one address."""
    hint = "write it like 192.0.2.0/24 or 2001:db8::/32"
    message = f"must be a network, not {shown(value)}"
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+(/\d{1,3})?", value):
        raise wrong("network", message, hint)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise wrong("network", message, hint) from None
    # `decide` compares an IPv4-mapped address as IPv4, so a mapped network would never match.
    if network.version == 6 and network.network_address in _MAPPED and network.prefixlen >= 96:
        inner = ipaddress.IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        raise wrong("network", message, f"write it as IPv4: {inner}/{network.prefixlen - 96}")
    address = ipaddress.ip_address(value.partition("/")[0])
    if address != network.network_address:
        raise wrong("network", message, f"the network is {network}; the one address, {address}")
    return network


_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def _uid(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,9}", value, re.ASCII):
        uid = int(value)
        if uid < 2**32 - 1:  # which means 'no such user' to the kernel
            return uid
    hint = "'id NAME' shows the numbers of an account and of its groups"
    raise wrong("uid", f"must be a number from 0 to 4294967294, not {shown(value)}", hint)


def _channel(value: Any) -> str:
    if isinstance(value, str) and value in SIDE_CHANNELS:
        return value
    message = f"must name a SPICE channel, not {shown(value)}"
    raise wrong("channel", message, f"the channels are {', '.join(sorted(SIDE_CHANNELS))}")


def _everyone(value: Any) -> bool:
    if value == "true":
        return True
    message = f"must be true, not {shown(value)}"
    raise wrong("everyone", message, "leave it out where not everyone is meant")


def _duration(value: Any) -> timedelta:
    try:
        return durations.parse_duration(value)
    except (TypeError, ValueError):
        message = f"must be a span of time, not {shown(value)}"
        raise wrong("duration", message, durations.HINT) from None


def _whole_number(highest: int) -> PlainValidator:
    def number(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,5}", value, re.ASCII):
            found = int(value)
            if found <= highest:
                return found
        hint = "write it in digits, or leave it out for the default"
        raise wrong("number", f"must be a number from 1 to {highest}, not {shown(value)}", hint)

    return PlainValidator(number)


def _seat(value: Any) -> str:
    if value in SEATS:
        return str(value)
    message = f"must be 'exclusive' or 'shared', not {shown(value)}"
    raise wrong("seat", message, "leave it out for one viewer at a time")


def _one_or_list(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "array", "items": schema}]})


VmName = Annotated[str, Field(pattern=f"^{VM_NAME.pattern}$")]
Account = Annotated[str, Field(pattern=_ACCOUNT, max_length=255)]
AnyAccounts = Annotated[
    tuple[Account, ...], BeforeValidator(_listed), _one_or_list({"type": "string"})
]
Accounts = Annotated[
    tuple[Account, ...],
    Field(min_length=1),
    BeforeValidator(_listed),
    _one_or_list({"type": "string"}),
]
Texts = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(_listed),
    _one_or_list({"type": "string"}),
]
Uids = Annotated[
    tuple[int, ...],
    _one_or_many(_uid),
    _one_or_list({"type": "integer", "minimum": 0, "maximum": 2**32 - 2}),
]
Everyone = Annotated[bool, PlainValidator(_everyone), WithJsonSchema({"const": True})]
Title = Annotated[str, Field(pattern=_PRINTABLE, max_length=80)]
Reason = Annotated[str, Field(pattern=_PRINTABLE, max_length=200)]
PlainPath = Annotated[str, AfterValidator(_check_path)]
SocketPath = Annotated[str, AfterValidator(_check_socket)]
Zone = Annotated[ZoneInfo, PlainValidator(_zone), WithJsonSchema({"type": "string"})]
Windows = Annotated[tuple[Window, ...], PlainValidator(_windows), _one_or_list({"type": "string"})]
Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
DateRanges = Annotated[
    tuple[DateRange, ...], _one_or_many(_date_range), _one_or_list({"type": "string"})
]
Networks = Annotated[tuple[Network, ...], _one_or_many(_network), _one_or_list({"type": "string"})]
Seat = Annotated[str, PlainValidator(_seat), WithJsonSchema({"enum": list(SEATS)})]
Durations = Annotated[
    tuple[timedelta, ...],
    _one_or_many(_duration, at_least=0),
    _one_or_list({"type": "string"}),
]
#: A limit per person or session. The kernel passes at most 253 descriptors in one packet.
Count = Annotated[
    int,
    _whole_number(MAX_COUNT),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_COUNT}),
]
ChannelNames = Annotated[
    tuple[str, ...],
    _one_or_many(_channel, at_least=0),
    _one_or_list({"enum": sorted(SIDE_CHANNELS)}),
]
