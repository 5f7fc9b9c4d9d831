"""One file of a map, read and checked by itself."""

from typing import TypeVar

from pydantic import ValidationError

from spicetunnel.policy import yamlsource
from spicetunnel.policy.models import MapPart, VmMap
from spicetunnel.policy.problems import Problem
from spicetunnel.policy.wording import problems_of
from spicetunnel.policy.yamlsource import Document

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
        problems += problems_of(error, document, kind)
        return document, None
