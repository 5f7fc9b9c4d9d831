"""The VM map: which VMs there are, and who may use them."""

import os
import re
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from spicetunnel.common.names import VM_NAME
from spicetunnel.policy import yamlsource
from spicetunnel.policy.mapfile import read_trusted
from spicetunnel.policy.problems import MapError, Problem, printable, quote
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamltree import Document, Mapping, Path, Sequence

__all__ = ["Grant", "MapError", "Problem", "Vm", "VmMap", "load_map", "parse_map"]

SOCKET_PATH_BYTES = 107  # sun_path holds 108 with its NUL

# What the account database could know, LDAP and Active Directory included (`DOM\\ann`,
# `ann@example.org`, digits only), less what could be taken for an option, a path or a list.
_ACCOUNT = r"^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.@+\\-]*\$?$"
# A title goes to terminals, logs and windows: nothing invisible, nothing that turns the text round.
_PRINTABLE = r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$"


def _check_socket(path: str) -> str:
    # normpath keeps two leading slashes, as POSIX wants; Linux gives them no meaning.
    normal = re.sub("^//", "/", os.path.normpath(path))
    if not path.startswith("/"):
        raise PydanticCustomError("socket_relative", "must be an absolute path", {"hint": ""})
    if not path.isprintable():
        raise PydanticCustomError("socket_text", "must be printable text", {"hint": ""})
    if path != normal:
        hint = f"write {quote(normal)}"
        raise PydanticCustomError("socket_detour", "must be a path without detours", {"hint": hint})
    if len(path.encode()) > SOCKET_PATH_BYTES:
        hint = "no Unix socket's path can be longer"
        raise PydanticCustomError("socket_long", "is longer than 107 bytes", {"hint": hint})
    return path


VmName = Annotated[str, Field(pattern=f"^{VM_NAME.pattern}$")]
Account = Annotated[str, Field(pattern=_ACCOUNT, max_length=255)]
Title = Annotated[str, Field(pattern=_PRINTABLE, max_length=80)]
SocketPath = Annotated[str, AfterValidator(_check_socket)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Grant(_Strict):
    """One line of a VM's `allow`."""

    user: Account | None = None
    group: Account | None = None
    take_over: bool = False
    _source: str = PrivateAttr("")

    @property
    def source(self) -> str:
        """Where it stands, as FILE:LINE."""
        return self._source

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.user is None and self.group is None:
            hint = "add 'user: NAME' or 'group: NAME'"
            raise PydanticCustomError("grant_nobody", "names nobody", {"hint": hint})
        if self.user is not None and self.group is not None:
            hint = "make it two grants"
            raise PydanticCustomError("grant_both", "names a user and a group", {"hint": hint})
        return self


class Vm(_Strict):
    title: Title = ""
    socket: SocketPath
    allow: tuple[Grant, ...] = ()


class VmMap(_Strict):
    vms: dict[VmName, Vm]


def load_map(path: str | os.PathLike[str]) -> VmMap:
    """Read and check the map at `path`. Raises MapError with every problem found."""
    name = os.fspath(path)
    return parse_map(read_trusted(name), printable(name))


def parse_map(data: bytes, file: str) -> VmMap:
    """Check a map's text; `file` is its name in problems. Raises MapError."""
    document = yamlsource.read(data, file)
    problems = list(document.problems)
    if document.root:
        problems += _shared_sockets(document)
        try:
            vm_map = VmMap.model_validate(document.root[0])
        except ValidationError as error:
            problems += problems_of(error, document, _keys_at)
    if problems:
        raise MapError(problems)
    _note_sources(vm_map, document)
    return vm_map


def _keys_at(path: Path) -> list[str]:
    """The keys that may stand in the block at `path`."""
    models: dict[int, type[BaseModel]] = {0: VmMap, 2: Vm, 4: Grant}
    model = models[len(path)]
    return [field.alias or name for name, field in model.model_fields.items()]


def _vms(document: Document) -> Iterator[tuple[str, Mapping]]:
    top = document.root[0]
    vms = top.get("vms") if isinstance(top, Mapping) else None
    for name, vm in vms.items() if isinstance(vms, Mapping) else ():
        if isinstance(vm, Mapping):
            yield name, vm


def _shared_sockets(document: Document) -> Iterator[Problem]:
    # Not a model's validator: it would not run while any other problem is left.
    owners: dict[str, str] = {}
    for name, vm in _vms(document):
        socket = vm.get("socket")
        if not isinstance(socket, str):
            continue
        owner = owners.setdefault(socket, name)
        if owner != name:
            _, place = document.locate(("vms", owner, "socket"))
            _, here = document.locate(("vms", name, "socket"))
            message = f"'socket' is that of vm {quote(owner)} too, at line {place.line}"
            yield Problem(document.file, *here, message, "give each vm a socket of its own")


def _note_sources(vm_map: VmMap, document: Document) -> None:
    for name, vm in _vms(document):
        allow = vm.get("allow")
        if isinstance(allow, Sequence):
            for grant, mark in zip(vm_map.vms[name].allow, allow.marks, strict=True):
                grant._source = f"{document.file}:{mark.line + 1}"
