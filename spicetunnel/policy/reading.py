"""One file of a map, read and checked by itself."""

from typing import TypeVar

from pydantic import ValidationError

from spicetunnel.policy import yamlsource
from spicetunnel.policy.models import Channels, Grant, Limits, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import Problem
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamltree import Document, Path

Model = TypeVar("Model", VmMap, MapPart)
Source = tuple[bytes, str]  # a file's bytes, and its name in problems


def read(
    kind: type[Model], source: Source, problems: list[Problem]
) -> tuple[Document, Model | None]:
    """Without a model where something is wrong, which is added to `problems`."""
    document = yamlsource.read(*source)
    problems += document.problems
    try:
        root = document.root
        return document, kind.model_validate(root[0], context=document.file) if root else None
    except ValidationError as error:
        problems += problems_of(error, document, lambda path: _keys_at(kind, path))
        return document, None


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
