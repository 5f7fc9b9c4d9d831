"""Temporary grants: one person may use one VM until an exact moment.

They are never in the map's file. The broker keeps them in a file of its own, and adds them to the
map before it decides. Each comes after its VM's own grants, and gives what a plain `- user: NAME`
gives.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from spicetunnel.common.names import SESSION_ID
from spicetunnel.policy.fields import Account, Reason, VmName
from spicetunnel.policy.models import Grant, Vm, VmMap
from spicetunnel.policy.schedule import Schedule

STATE_DIR = "/var/lib/spicetunnel/broker"
FILE = "grants.json"
LONGEST = timedelta(days=30)  # longer grants belong in the map
MOST = 1000


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("beyond the calendar") from None


_Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TemporaryGrant(_Strict):
    """`by` is the admin who gave it."""

    id: Annotated[str, Field(pattern=f"^{SESSION_ID.pattern}$")]
    user: Account
    vm: VmName
    since: _Moment
    until: _Moment
    by: Reason
    reason: Reason = ""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not self.since < self.until <= self.since + LONGEST:
            raise ValueError(f"lasts no time, or more than {LONGEST.days} days")
        return self

    @property
    def source(self) -> str:
        """How the log and `explain` name it; the time is the server's local time."""
        end = f"{self.until.astimezone():%Y-%m-%d %H:%M}"
        return f"temporary grant {self.id} by {self.by} until {end}"


class Lent(Grant):
    """A temporary grant, as one of its VM's grants."""

    record: TemporaryGrant

    @property
    def source(self) -> str:
        return self.record.source

    def schedule(self, zone: ZoneInfo) -> Schedule:
        return Schedule(zone, expires=self.record.until)


def with_temporary(vm_map: VmMap, grants: Iterable[TemporaryGrant]) -> VmMap:
    """The map with these grants added. One for a VM that the map does not have gives nothing."""
    changed: dict[str, Vm] = {}
    for each in grants:
        if vm := changed.get(each.vm) or vm_map.vms.get(each.vm):
            lent = Lent(user=(each.user,), record=each)
            changed[each.vm] = vm.model_copy(update={"allow": (*vm.allow, lent)})
    return vm_map.model_copy(update={"vms": vm_map.vms | changed}) if changed else vm_map


class _File(_Strict):
    v: Literal[1]
    grants: Annotated[tuple[TemporaryGrant, ...], Field(max_length=MOST)]

    @model_validator(mode="after")
    def _known_apart(self) -> Self:
        if len({each.id for each in self.grants}) < len(self.grants):
            raise ValueError("an id comes twice")
        return self


def written(grants: Iterable[TemporaryGrant]) -> bytes:
    """The file's bytes."""
    whole = _File.model_construct(v=1, grants=tuple(grants))
    return whole.model_dump_json(indent=1).encode()


def read_grants(data: bytes) -> tuple[TemporaryGrant, ...]:
    """Read what `written` made. Raises ValueError, with one line, for anything else."""
    try:
        return _File.model_validate_json(data).grants
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or FILE
        message = first["msg"]
        raise ValueError(f"{where}: {message[:1].lower()}{message[1:]}") from None
