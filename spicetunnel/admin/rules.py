"""The map and the temporary grants: from their files or, where this admin may not read those, from
the running broker.

A map is for root and the broker to read, because it names people and VMs. The members of the admin
group ask the broker: docs/protocol.md, section 2, "The admin's command".
"""

import json
import os
import stat
from typing import NamedTuple

from pydantic import ValidationError

from spicetunnel.admin.broker import ask_rows
from spicetunnel.common.errors import ProtocolError, SpicetunnelError, os_reason
from spicetunnel.common.protocol import text
from spicetunnel.policy.mapfile import MAX_BYTES, is_forbidden, with_hint_if_forbidden
from spicetunnel.policy.problems import MapError, printable
from spicetunnel.policy.temporary import FILE, STATE_DIR, TemporaryGrant, read_grants
from spicetunnel.policy.vmmap import Source, VmMap, load_map, parse_sources

ADMINS_ONLY = "run this as root, or as a member of the admin group while the broker runs"

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def load_rules(map_file: str, run_dir: str) -> VmMap:
    """The map; the broker's, if this admin may not read the file, and it is that file.

    Raises MapError.
    """
    try:
        return load_map(map_file)
    except MapError as error:
        if not any(map(is_forbidden, error.problems)):
            raise
        sources = _sources_of_broker(run_dir)
        if not sources or sources[0][1] != printable(os.path.abspath(map_file)):
            raise with_hint_if_forbidden(error, ADMINS_ONLY) from None
    return parse_sources(sources)


def _sources_of_broker(run_dir: str) -> list[Source]:
    """The texts of the map in force; none if the broker does not answer, or refuses."""
    try:
        rows = ask_rows(run_dir, "map")
        texts: dict[str, str] = {}
        for row in rows:
            name = printable(text(row, "file"))
            texts[name] = texts.get(name, "") + text(row, "text")
    except SpicetunnelError:
        return []
    return [(each.encode("utf-8", "surrogatepass"), name) for name, each in texts.items()]


class Lending(NamedTuple):
    """The temporary grants. If they cannot be read, `doubt` says why, and there are none here."""

    grants: tuple[TemporaryGrant, ...]
    doubt: str = ""


def lending(state_dir: str, run_dir: str) -> Lending:
    """The temporary grants in their file or, if it cannot be read, those that the broker tells."""
    path = os.path.join(state_dir, FILE)
    try:
        return Lending(read_grants(_bytes(path)))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _may_be_missing(state_dir):
            return Lending(())
        why = os_reason(error)
    except ValueError as error:
        why = str(error)
    try:
        return Lending(tuple(map(read_grant, ask_rows(run_dir, "grants"))))
    except SpicetunnelError:
        return Lending((), f"{printable(path)}: {printable(why)}")


def read_grant(row: object) -> TemporaryGrant:
    """A grant of the broker's answer, checked: nothing unchecked reaches the terminal.

    Raises ProtocolError.
    """
    try:
        return TemporaryGrant.model_validate_json(json.dumps(row))
    except ValidationError:
        raise ProtocolError("the broker's answer is not a temporary grant") from None


def _may_be_missing(state_dir: str) -> bool:
    """Whether no file means that nothing was ever granted, and not that `state_dir` is wrong."""
    return state_dir == STATE_DIR or os.path.isdir(state_dir)


def _bytes(path: str) -> bytes:
    """The bytes of a file that another user, the broker, owns. Raises OSError or ValueError."""
    with open(os.open(path, _OPEN), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("is too large")
    return data
