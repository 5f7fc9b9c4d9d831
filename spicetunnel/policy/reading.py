"""One file of a map: read as a whole, or again where much of it has been read before."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar

from pydantic import ValidationError

from spicetunnel.policy import yamlsource
from spicetunnel.policy.chunks import Chunk, Cut, cut, proven
from spicetunnel.policy.models import Channels, Grant, Limits, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import Problem
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamltree import Document, Mapping, Node, Path, Sequence

Model = TypeVar("Model", VmMap, MapPart)
Source = tuple[bytes, str]  # a file's bytes, and its name in problems


class DoubtError(Exception):
    """Something is wrong or unusual: only reading the whole tells."""


@dataclass(frozen=True)
class Reading(Generic[Model]):
    """What a good file says. `chunks` are all its VMs, or none where the text is not so simple.

    `lines` are where the chunks stand in this file: `settle` moves them there.
    """

    source: Source
    model: Model
    chunks: dict[bytes, Chunk] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)

    def settle(self) -> None:
        """Not before the whole map is good: until then the last one's places are in force."""
        for chunk, line in zip(self.chunks.values(), self.lines, strict=False):
            chunk.move_to(line)


Read = tuple[Document, Reading[Model] | None]  # the document is for the checks between files


def read(kind: type[Model], source: Source, problems: list[Problem]) -> Read[Model]:
    """Without a reading where something is wrong, which is added to `problems`."""
    data, file = source
    document = yamlsource.read(data, file)
    model = _validated(kind, document, problems)
    if model is None or document.problems:
        return document, None
    parts = cut(data)
    if parts is None or not proven(parts, document.root[0]):
        return document, Reading(source, model)
    vms = zip(parts.chunks, model.vms.items(), parts.lines, strict=False)
    chunks = {text: Chunk(name, vm, line) for text, (name, vm), line in vms}
    return document, Reading(source, model, chunks, parts.lines)


def read_again(kind: type[Model], source: Source, last: Reading[Model] | None) -> Read[Model]:
    """What `read` says, without reading the VMs whose text is known from `last`; or DoubtError."""
    data, file = source
    parts = cut(data)
    if last is None or last.source[1] != file or not last.chunks or parts is None:
        return _read_good(kind, source)
    _, rest = _read_good(kind, (_unknown_of(parts, last.chunks), file))
    if not rest.chunks:
        raise DoubtError
    known = last.chunks | rest.chunks
    chunks = {text: known[text] for text in parts.chunks}
    vms = {chunk.name: chunk.vm for chunk in chunks.values()}
    if len(vms) != len(parts.chunks):
        raise DoubtError
    model = rest.model.model_copy(update={"vms": vms})
    return outline(file, model), Reading(source, model, chunks, parts.lines)


def _unknown_of(parts: Cut, known: Container[bytes]) -> bytes:
    """What is to be read: with the first VM in any case, so that it has the form of the whole."""
    first, *others = parts.chunks
    new = [first, *(text for text in others if text not in known)]
    return b"".join([parts.head, *new, parts.tail])


def _read_good(kind: type[Model], source: Source) -> tuple[Document, Reading[Model]]:
    document, reading = read(kind, source, [])
    if reading is None:
        raise DoubtError
    return document, reading


def outline(file: str, model: VmMap | MapPart) -> Document:
    """What the checks between files look at, of a good file, but without a place for anything."""
    people: Mapping = dict.fromkeys(model.people, "")
    vms: Mapping = {name: _outline_of(vm) for name, vm in model.vms.items()}
    return Document(file, Sequence([{"people": people, "vms": vms}]), read_marked=_no_places)


def _outline_of(vm: Vm) -> Mapping:
    used: list[Node] = [{"people": Sequence(grant.people)} for grant in vm.allow if grant.people]
    return {"socket": vm.socket, "allow": Sequence(used)}


def _no_places() -> NoReturn:
    raise DoubtError


def _validated(kind: type[Model], document: Document, problems: list[Problem]) -> Model | None:
    """The document as a model, or None with what is wrong added to `problems`."""
    problems += document.problems
    try:
        root = document.root
        return kind.model_validate(root[0], context=document.file) if root else None
    except ValidationError as error:
        problems += problems_of(error, document, lambda path: _keys_at(kind, path))
        return None


def _keys_at(top: type[VmMap | MapPart], path: Path) -> list[str]:
    """The keys that may stand in the block at `path`."""
    match path:
        case ("vms", _):
            model: type[Vm | Grant | Channels | Who | Limits | VmMap | MapPart] = Vm
        case ("vms", _, "allow", _):
            model = Grant
        case ("vms", _, "allow", _, "channels"):
            model = Channels
        case ("people", _, _):
            model = Who
        case ("limits",):
            model = Limits
        case _:
            model = top
    return [field.alias or name for name, field in model.model_fields.items()]
