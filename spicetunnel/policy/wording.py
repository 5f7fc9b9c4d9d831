"""Pydantic's errors in the words of the map, which the admin knows."""

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spicetunnel.policy.fields import why_not_a_name
from spicetunnel.policy.models import Channels, Grant, Limits, MapPart, Vm, VmMap, Who
from spicetunnel.policy.problems import Problem, quote, suggest
from spicetunnel.policy.yamlsource import Document, Hole, Path, shown

Kind = type[VmMap | MapPart]

_BLOCK: Final = ("must be a block of keys", "write 'KEY: VALUE' lines")
_LIST: Final = ("must be a list", "start each entry with '- '")
_SWITCH: Final = ("must be true or false", "leave it out for false")
_TEXT: Final = ("must be text", "write one value, without brackets or braces")
_TEXTS: Final = ("must be text or a list of texts", "write 'KEY: ONE', or 'KEY: [ONE, TWO]'")
_INVALID: Final = ("is not valid", "spicetunnel-map(5) says what it may be")

#: By type of pydantic's error: what is expected, and a hint.
_BY_TYPE: Final = {
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "literal_error": ("must be 'console'", "leave it out for any place"),
    "dict_type": _BLOCK,
    "list_type": _LIST,
    "model_type": _BLOCK,
    "string_type": _TEXT,
    "string_unicode": _TEXT,
    "too_short": ("is empty", "name at least one, or remove it"),
    "tuple_type": _TEXTS,
}
#: By key, for text that does not match the key's pattern: what is expected, and a hint.
_BY_KEY: Final = {
    "title": ("must be printable text", "remove what a terminal cannot show"),
    "vms": (
        "must be made of letters, digits, '.', '_' and '-'",
        "start it with a letter or digit, and use at most 64 characters",
    ),
}
#: Keys with the names of accounts, or of people.
_NAMES: Final = {"user", "group", "delegates", "people"}
#: Keys that a file of vms.d may not have.
_MAIN_ONLY: Final = {("timezone",), ("delegates",), ("warn",), ("limits",)}
_IF_MISSING: Final = {
    "socket": "add 'socket: /PATH', where QEMU listens for SPICE",
}


def problems_of(error: ValidationError, document: Document, kind: Kind) -> Iterator[Problem]:
    """Every error that validating `document` as that kind gave, as a Problem."""
    for detail in error.errors(include_url=False):
        # The reader has reported a hole already. And pydantic says "too short" of a list if none of
        # its entries is valid, beside the error of each.
        found = detail["input"]
        if not isinstance(found, Hole) and not (detail["type"] == "too_short" and found):
            yield _problem(detail, document, kind)


def _problem(detail: ErrorDetails, document: Document, kind: Kind) -> Problem:
    path = detail["loc"]
    key, value = document.locate(path)
    last = _last_key(path)
    match detail["type"]:
        case "extra_forbidden":
            if path in _MAIN_ONLY:
                message = f"{quote(last)} belongs in the main file, not in vms.d"
                return Problem(document.file, *key, message, "move it to vms.yaml")
            message = f"unknown key {quote(last)} in {_name(path[:-1])}"
            hint = suggest(last, _keys_at(kind, path[:-1]), "known keys")
            return Problem(document.file, *key, message, hint)
        case "missing":
            message = f"{_name(path[:-1])} has no {quote(last)}"
            return Problem(document.file, *key, message, _IF_MISSING.get(last, ""))
    wanted, hint = _expectation(detail)
    found = f", not {shown(detail['input'])}" if wanted.startswith("must be ") else ""
    if "message" in detail.get("ctx", {}):
        found = ""  # one of our own errors: it names the value itself
    place = key if last == "[key]" else value
    return Problem(document.file, *place, f"{_name(path)} {wanted}{found}", hint)


def _expectation(detail: ErrorDetails) -> tuple[str, str]:
    context = detail.get("ctx", {})
    if "hint" in context:  # one of our own errors: its words are where it is raised
        return detail["msg"], context["hint"]
    match detail["type"]:
        case "string_pattern_mismatch":
            return _pattern_words(detail)
        case "tuple_type" if detail["loc"][-1] == "allow" or detail["loc"][0] == "people":
            return _list_words(detail["input"])
        case "model_type" if detail["loc"]:
            return _block_words(detail["input"], is_entry=isinstance(detail["loc"][-1], int))
        case "string_too_long":
            return f"is longer than {context['max_length']} characters", "shorten it"
    return _BY_TYPE.get(detail["type"], _INVALID)


def _list_words(found: object) -> tuple[str, str]:
    """For what stands in place of a list of entries."""
    if isinstance(found, str):
        return _LIST[0], "write '- user: NAME' on a line below it"
    if isinstance(found, dict) and any(str(key).startswith("-") for key in found):
        return _LIST[0], "put a space after each '-'"
    return _LIST


def _block_words(found: object, *, is_entry: bool) -> tuple[str, str]:
    """For what stands in place of a block of keys; `is_entry`: of one in a list."""
    key, colon, _ = found.partition(":") if isinstance(found, str) else ("", "", "")
    if is_entry and not colon:
        return _BLOCK[0], "write '- user: NAME' or '- group: NAME'"
    if colon and key.replace("-", "").isalnum():
        return _BLOCK[0], f"put a space after {quote(key + ':')}"
    return _BLOCK


def _pattern_words(detail: ErrorDetails) -> tuple[str, str]:
    last = _last_key(detail["loc"])
    key = str(detail["loc"][0]) if last == "[key]" else last
    if key in _NAMES:
        why, hint = why_not_a_name(detail["input"])
        return f"cannot be {quote(detail['input'])}: {why}", hint
    return _BY_KEY.get(key, _INVALID)


def _name(path: Path) -> str:
    """What the map calls the thing at `path`."""
    match path:
        case ():
            return "the map"
        case ("vms" | "people", _, "[key]"):
            return "a vm's name" if path[0] == "vms" else "a name of people"
        case ("vms", name):
            return f"vm {quote(str(name))}"
        case ("vms", name, "allow", _):
            return f"a grant of vm {quote(str(name))}"
        case ("people", name, _):
            return f"an entry of people {quote(str(name))}"
    return quote(_last_key(path))


def _keys_at(top: Kind, path: Path) -> list[str]:
    """The keys that the block at `path` may have."""
    match path:
        case ("vms", _):
            model: type[BaseModel] = Vm
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


def _last_key(path: Path) -> str:
    """The innermost key; the index in a list means nothing to an admin."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")
